"""Packaging of tfctr; also what Beam ships to its workers with `--setup_file=./setup.py`.

This is the one place where dependencies are declared. `constraints.txt` pins what was tested.
"""

from setuptools import find_packages, setup

setup(
    name="tfctr",
    version="0.1.0",
    description="Turn offline knowledge into click-through-rate models that are cheap to serve",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["tfctr", "tfctr.*", "beam_pipelines", "beam_pipelines.*"]),
    package_data={"tfctr.frameworks.ecdctr": ["*.html"], "tfctr.report": ["*.html"]},
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<4",
        "keras-nlp>=0.32,<0.33",
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
        "scikit-learn>=1.4",
        "scipy>=1.10",
        "safetensors>=0.4",
        "wrapt>=1.15",
    ],
    extras_require={
        "tune": ["optuna>=5,<6"],
        "tensorboard": ["tensorboard>=2.19"],
        "dask": ["apache-beam[dask]>=2.77,<3"],
        "report": ["jinja2>=3.1", "matplotlib>=3.9"],
        "benchmarks": ["lightgbm>=4.6,<5"],
        "test": [
            "optuna>=5,<6",  # of `tune`
            "tensorboard>=2.19",
            "apache-beam[dask]>=2.77,<3",
            "jinja2>=3.1",  # of `report`
            "matplotlib>=3.9",
            "lightgbm>=4.6,<5",  # of `benchmarks`
            "pytest>=8",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",
            "hypothesis>=6",
            "ruff>=0.6",
            "mypy>=1.10",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["tfctr=tfctr.cli:app"]},
)
