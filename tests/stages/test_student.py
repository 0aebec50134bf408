"""The check of a student before anything is prepared."""

import typing

import pytest

from tests.conftest import world_config
from tfctr import backbones
from tfctr.schema import Numeric
from tfctr.stages.student import stand_in

TRANSFORMS = typing.get_args(Numeric.model_fields["transform"].annotation)


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_number_of_any_transform_stands_in_a_model(transform: str) -> None:
    features = [
        {"name": "user_id", "kind": "categorical", "side": "user", "dtype": "int"},
        {"name": "price", "kind": "numeric", "side": "item", "transform": transform},
    ]
    schema = stand_in(world_config(user=None, item=None, features=features))
    backbones.create("lr", schema).build()
