"""`tfctr backbones` and `tfctr frameworks` say what a config may name."""

import inspect

import pytest
from typer.testing import CliRunner

from tfctr import backbones
from tfctr.cli import app
from tfctr.config.method import registered


@pytest.fixture
def listed(request: pytest.FixtureRequest) -> dict[str, tuple[str, str]]:
    """The line of each name, and that of its keys."""
    result = CliRunner().invoke(app, [request.param])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    names = [line.partition(": ") for line in lines[::2]]
    return {name: (about, keys) for (name, _, about), keys in zip(names, lines[1::2], strict=True)}


@pytest.mark.parametrize("listed", ["backbones"], indirect=True)
def test_every_backbone_is_listed_with_its_arguments(listed: dict[str, tuple[str, str]]) -> None:
    assert tuple(listed) == backbones.registered()
    assert all(about.endswith(".") for about, _ in listed.values())
    assert listed["din"][0] == (
        "Attention from the candidate to the events of the history, and an MLP over all fields."
    )
    assert listed["fm"][1] == "    embedding_dim=16"
    assert listed["lr"][1] == "    no keys"
    for name in listed:
        cls = backbones.registered_class(name)
        for argument in inspect.signature(cls).parameters:
            assert argument in ("schema", "kwargs") or f" {argument}=" in listed[name][1]


@pytest.mark.parametrize("listed", ["frameworks"], indirect=True)
def test_every_method_is_listed_with_its_keys(listed: dict[str, tuple[str, str]]) -> None:
    assert tuple(listed) == tuple(registered())
    assert listed["rok"] == (
        "A student with a knowledge base (ROK, arXiv:2404.18304).",
        "    knowledge, use=['instance', 'feature'], tuned=False",
    )
    assert "pretraining={}" in listed["ctrl"][1]
    for name, cls in registered().items():
        for key in cls.model_fields:
            assert key == "name" or f" {key}" in listed[name][1]
