"""A factory for the settings of section data."""

from collections.abc import Callable
from typing import Any

import pytest

from ddpm.params import Data

Settings = Callable[..., Data]


@pytest.fixture
def settings() -> Settings:
    """Return a function that makes valid settings of section data with the given changes."""
    defaults: dict[str, Any] = {
        "source": "digits",
        "path": None,
        "digest": None,
        "image_size": 8,
        "channels": 1,
        "fit": "pad",
        "seed": 0,
    }
    return lambda **changes: Data(**defaults | changes)
