"""A temporary experiment repository, and a tiny model with random weights."""

import shutil
from pathlib import Path

import pytest
import torch

from ddpm import params
from ddpm.network import modelfile
from stages import pipeline

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
    monkeypatch.setattr(pipeline, "ROOT", where)
    return where


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """A model of 4x4 grey images and 10 timesteps that has learned nothing."""
    usual = params.load(ROOT / "params.yaml")
    changes = {"channels": 4, "multipliers": [1], "groups": 2, "attention": []}
    diffusion = usual.diffusion.model_copy(update={"timesteps": 10})
    description = modelfile.Description(diffusion, usual.network.model_copy(update=changes), (1, 4, 4), ["a", "b"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = description.build().state_dict()
        for weight in weights.values():
            weight += 0.1 * torch.randn(weight.shape)  # what begins as zero would make all images alike
    path = tmp_path / "model.safetensors"
    modelfile.save(path, description, weights)
    return path
