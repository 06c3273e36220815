"""The stages of dvc.yaml, run one after the other in this process, without DVC and MLflow."""

import runpy
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from lab import terminal
from lab.experiment import dvcfile
from lab.tracking import live, publish
from tests.imports import ROOT

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@contextmanager
def _no_tracking(*_: object) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(log=lambda *_, **__: None, preview=lambda *_: None)


@contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """Work in a folder with dvc.yaml and the default recipe; MLflow is disabled."""
    (folder / "recipes").mkdir(parents=True)
    for name in ("dvc.yaml", "recipes/default.yaml"):
        shutil.copy(ROOT / name, folder / name)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        patched.setattr(dvcfile, "ROOT", folder)
        patched.setattr(live, "live", _no_tracking)
        patched.setattr(publish, "publish", lambda _: None)
        patched.setenv("DDPM_SUMMARY", "later")
        yield folder
    torch.use_deterministic_algorithms(False)


def run(stage: str) -> None:
    """Run the command of a stage."""
    arguments = shlex.split(STAGES[stage]["cmd"])
    assert arguments[:3] == ["python", "-m", f"stages.{stage}"]
    with pytest.MonkeyPatch.context() as patched, torch.enable_grad():  # evaluate switches it off for its process
        patched.setattr("sys.argv", arguments[2:])
        patched.setattr(terminal, "outlive", lambda: None)  # it replaces the streams of this process
        runpy.run_path(str(ROOT / "stages" / f"{stage}.py"), run_name="__main__")
