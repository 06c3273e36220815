"""Settings of section data, to change one by one."""

from collections.abc import Callable
from typing import Any

import pytest

from ddpm.params import Data

Settings = Callable[..., Data]


@pytest.fixture
def settings() -> Settings:
    """A function that gives usable settings with some of them changed."""
    usual: dict[str, Any] = {
        "source": "digits",
        "path": None,
        "digest": None,
        "image_size": 8,
        "channels": 1,
        "fit": "pad",
        "seed": 0,
    }
    return lambda **changes: Data(**usual | changes)
