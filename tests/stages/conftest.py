"""The outputs of all stages before evaluate, for a tiny conditional model with snapshots."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ddpm import params
from ddpm.data import dataset
from ddpm.network import modelfile
from ddpm.params import Params
from lab.experiment import dvcfile
from stages.evaluate import evaluate
from stages.reference import reference
from stages.sample import sample
from tests.evaluation.conftest import stripes
from tests.imports import ROOT

Evaluated = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which each test keeps the state of its stages."""
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    return tmp_path


def changed(**sections: dict[str, Any]) -> Params:
    """The committed parameters with tiny values, a conditional network, and the given changes."""
    return params.check(values(**sections))


def values(**sections: dict[str, Any]) -> dict[str, Any]:
    """The contents of params.yaml for `changed`."""
    tiny: dict[str, dict[str, Any]] = {
        "diffusion": {"timesteps": 10},
        "network": {"channels": 8, "groups": 4, "conditional": True},
        "train": {"label_dropout": 0.1},
        "sample": {"count": 24, "batch_size": 16, "steps": 3, "guidance": 0.5},
        "evaluate": {"classifier": {"channels": 4, "steps": 40, "batch_size": 32, "learning_rate": 0.02}},
        "runtime": {"device": "cpu", "threads": 1, "deterministic": False},
    }
    committed = yaml.safe_load((ROOT / "params.yaml").read_text())
    return committed | {key: committed[key] | part | sections.get(key, {}) for key, part in tiny.items()}


def model(path: Path, seed: int, size: int = 8, **network: Any) -> None:
    """Write a model with random weights for images of stripes."""
    settings = changed()
    built = settings.network.model_copy(update=network)
    description = modelfile.Description(settings.diffusion, built, (1, size, size), ["rows", "columns"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = {
            name: weight + 0.1 * torch.randn(weight.shape) for name, weight in description.build().state_dict().items()
        }
    modelfile.save(path, description, weights)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of all stages before evaluate."""
    path = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dvcfile, "ROOT", path)
        fill(path)
        run("reference", path, changed(), path)
        run("sample", path, changed(), path)
    return path


def fill(path: Path) -> None:
    """Write images of stripes, a model and three snapshots."""
    for split, count, seed in (("train", 48, 1), ("test", 20, 2)):
        made = stripes(count, 1, seed)
        arrays = (made.images.numpy(), made.labels.numpy(), ["rows", "columns"], made.image_shape, {"name": "stripes"})
        dataset.write(path / f"{split}.safetensors", *arrays)
    model(path / "model.safetensors", 0)
    for step in (5, 30, 200):
        model(path / f"snapshots/{step:08d}.safetensors", step)


STAGES = {"reference": reference, "sample": sample, "evaluate": evaluate}
DATA = {"train": "train.safetensors", "test": "test.safetensors"}
EXTRACTOR = {"extractor": "extractor.safetensors"}
SAMPLES = {"samples": "samples.safetensors", "snapshot_samples": "snapshot-samples.safetensors"}
MODEL = {"model": "model.safetensors"}
INPUTS = {
    "reference": DATA,
    "sample": MODEL | {"snapshots": "snapshots", "test": DATA["test"]},
    "evaluate": MODEL | SAMPLES | EXTRACTOR | {"data": "", "reference": "reference.safetensors"},
}
OUTPUTS = {
    "reference": EXTRACTOR | {"features": "reference.safetensors"},
    "sample": SAMPLES | {"reports": ""},
    "evaluate": {"protocol": "protocol.json", "reports": ""},
}


def paths(stage: str, folder: Path, out: Path) -> dict[str, Path]:
    """The arguments of a stage whose inputs are in `folder` and whose outputs go to `out`."""
    inputs = {name: folder / path for name, path in INPUTS[stage].items()}
    return inputs | {name: out / path for name, path in OUTPUTS[stage].items()}


def command(stage: str, folder: Path, out: Path) -> list[str]:
    """The same arguments for the command line."""
    return [f"--{name.replace('_', '-')}={path}" for name, path in paths(stage, folder, out).items()]


def run(stage: str, folder: Path, settings: Params, out: Path, **other: Path) -> None:
    """Run a stage on the inputs in `folder`, or on other ones."""
    STAGES[stage](settings, **paths(stage, folder, out) | other)


@pytest.fixture
def evaluated(folder: Path, tmp_path: Path) -> Evaluated:
    """Return a function that runs stage evaluate and returns its metrics; the outputs are in tmp_path."""

    def evaluated(settings: Params, **other: Path) -> dict[str, Any]:
        run("evaluate", folder, settings, tmp_path, **other)
        return dict(json.loads((tmp_path / "metrics.json").read_text()))

    return evaluated
