"""A temporary experiment repository, a tiny model with random weights, a store of MLflow."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import TypeAdapter

from ddpm.network import modelfile
from ddpm.params import Diffusion, UNetNetwork
from lab.experiment import dvcfile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the project's dvc.yaml, params.yaml and recipes, which is the working directory."""
    where = tmp_path / "repository"
    where.mkdir()
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, where)
    shutil.copytree(ROOT / "recipes", where / "recipes")
    monkeypatch.chdir(where)
    monkeypatch.setattr(dvcfile, "ROOT", where)
    return where


MakeModel = Callable[..., Path]
COURSE = {"process": "interpolation", "timesteps": 10, "prediction": "x_0", "variance": "fixed", "value_range": [0, 1]}


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """A function that writes a model of 4x4 grey images, 10 timesteps and two classes that has learned nothing.

    Keywords change the sections diffusion and network; `diffusion=COURSE` replaces the former.
    """

    def make(name: str = "model", diffusion: dict[str, Any] | None = None, **network: Any) -> Path:
        usual: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
        if diffusion is None or "process" not in diffusion:
            diffusion = usual["diffusion"] | {"timesteps": 10} | (diffusion or {})
        network = usual["network"] | {"channels": 4, "multipliers": [1], "groups": 2, "attention": []} | network
        description = modelfile.Description(
            TypeAdapter[Diffusion](Diffusion).validate_python(diffusion),
            UNetNetwork.model_validate(network),
            (1, 4, 4),
            ["cat", "dog"],
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            weights = description.build().state_dict()
            for weight in weights.values():
                weight += 0.1 * torch.randn(weight.shape)  # what begins as zero would make all images alike
        path = tmp_path / f"{name}.safetensors"
        modelfile.save(path, description, weights)
        return path

    return make


@pytest.fixture
def model_file(make_model: MakeModel) -> Path:
    """An unconditional one of the Gaussian process."""
    return make_model()


@pytest.fixture(scope="session")
def first_publication(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store as one `publish` creates it, under an experiment of its own, and what that printed."""
    from tests.lab.tracking.repository import repository

    folder = repository(tmp_path_factory.mktemp("first"))
    script = (
        "from pathlib import Path; from ddpm.params import load; from lab.tracking.publish import publish\n"
        "params = load(Path('params.yaml')); named = params.tracking.model_copy(update={'experiment': 'template'})\n"
        "assert publish(params.model_copy(update={'tracking': named}))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    environment |= {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "mlflow.db", done.stdout + done.stderr
