"""Packaging of tfctr; also what Beam ships to its workers with `--setup_file=./setup.py`.

This is the one place where dependencies are declared. `constraints.txt` pins what was tested.
"""

from setuptools import find_packages, setup

EXTRAS = {
    "language": ["keras-nlp>=0.32,<0.33", "safetensors>=0.4"],  # texts: CTRL, ClickPrompt, `embed`
    "report": ["jinja2>=3.1", "matplotlib>=3.9"],
    "tune": ["optuna>=5,<6"],
    "dask": ["apache-beam[dask]>=2.77,<3"],
    "tensorboard": ["tensorboard>=2.19"],
}
EXTRAS["all"] = [requirement for extra in EXTRAS.values() for requirement in extra]
EXTRAS["benchmarks"] = ["lightgbm>=4.6,<5"]
EXTRAS["docs"] = [
    "mkdocs-material>=9.6,<10",
    "mkdocstrings[python]>=0.30,<2",
    "mdx-truly-sane-lists>=1.3",
]
EXTRAS["test"] = [
    *EXTRAS["all"],
    *EXTRAS["benchmarks"],
    "scikit-learn>=1.4",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6",
    "pandas>=2.2",
    "ruff>=0.6",
    "mypy>=1.10",
    "types-PyYAML",
]

setup(
    name="tfctr",
    version="0.1.0",
    description="Turn offline knowledge into click-through-rate models that are cheap to serve",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["tfctr", "tfctr.*", "beam_pipelines", "beam_pipelines.*"]),
    package_data={
        "tfctr": ["demo/dcnv2.yaml", "demo/data.yaml"],  # of `tfctr demo`; a link to configs/demo
        "tfctr.frameworks.ecdctr": ["*.html"],
        "tfctr.report": ["*.html"],
    },
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<4",
        "keras-rs>=0.4,<1",
        "tensorflow-recommenders>=0.7.7,<0.8",
        "tensorflow-serving-api>=2.21,<2.22",
        "apache-beam>=2.77,<3",
        "numpy>=1.26,<3",
        "pyarrow>=16",
        "pydantic>=2.7,<3",
        "PyYAML>=6",
        "typer>=0.12",
        "rich>=13",
        "filelock>=3.12",
        "fsspec>=2024.2",
        "pooch>=1.8,<2",
        "tqdm>=4.41",  # pooch's progress bar
        "google-crc32c>=1.5",
        "scipy>=1.10",
        "wrapt>=1.15",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["tfctr=tfctr.cli:app"]},
)
