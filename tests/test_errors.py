"""The message for an unknown key."""

import pytest

from ddpm.errors import no_such_key
from ddpm.params import Params


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("trian.learning_rate", "train.learning_rate"),
        ("trian.stepz", "train.steps"),
        ("train.eta", "sample.eta"),
        ("learning_rate", "train.learning_rate"),
        ("samples", "sample"),
    ],
)
def test_the_nearest_key_may_be_in_another_section(key: str, nearest: str) -> None:
    assert no_such_key(key, Params) == f"there is no such key; the nearest is {nearest}"


@pytest.mark.parametrize("key", ["model", "train.lr", "lr"])
def test_no_key_is_named_if_none_is_similar(key: str) -> None:
    assert no_such_key(key, Params) == "there is no such key"
