"""Stage train in this process, on a few tiny images and without MLflow."""

from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from ddpm.params import Params
from lab.experiment import dvcfile
from stages.train import train
from tests.stages.conftest import changed


def params(**settings: Any) -> Params:
    """A training that flips images and drops out, with these settings of the section train."""
    return changed(
        train={"batch_size": 4, "warmup": 2, "horizontal_flip": True, **settings},
        network={"channels": 8, "groups": 4, "dropout": 0.1},
        runtime={"checkpoint_every": 2, "preview_every": 1000, "log_every": 3, "device": "cpu", "threads": 1},
    )


def trained(settings: Params, data: Path, root: Path) -> dict[str, bytes]:
    """Train from the last state in `root` to the end; return the bytes of the outputs."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dvcfile, "ROOT", root)
        patched.setattr("stages.train.live", MagicMock())
        train(settings, data, root / "model", root / "state", root / "snapshots", root / "curve")
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file() and ".ckpt" not in path.parts}
