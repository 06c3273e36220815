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
        _fill(path)
    return path


def _fill(path: Path) -> None:
    for split, count, seed in (("train", 48, 1), ("test", 20, 2)):
        made = stripes(count, 1, seed)
        arrays = (made.images.numpy(), made.labels.numpy(), ["rows", "columns"], made.image_shape, {"name": "stripes"})
        dataset.write(path / f"{split}.safetensors", *arrays)
    refer(path, changed(), path)
    model(path / "model.safetensors", 0)
    for step in (5, 30, 200):
        model(path / f"snapshots/{step:08d}.safetensors", step)
    draw(path, changed())


def draw(folder: Path, settings: Params, out: Path | None = None) -> None:
    """Run stage sample on the model in `folder`; its outputs go to `out`, by default the same folder."""
    out = out or folder
    sample(
        settings,
        model=folder / "model.safetensors",
        snapshots=folder / "snapshots",
        test=folder / "test.safetensors",
        samples=out / "samples.safetensors",
        snapshot_samples=out / "snapshot-samples.safetensors",
        reports=out,
    )


def judge(folder: Path, settings: Params, out: Path, samples: Path | None = None) -> None:
    """Run stage evaluate on the samples in `folder`, or on others; its outputs go to `out`."""
    evaluate(
        settings,
        model=folder / "model.safetensors",
        samples=samples or folder / "samples.safetensors",
        snapshot_samples=folder / "snapshot-samples.safetensors",
        data=folder,
        extractor=folder / "extractor.safetensors",
        reference=folder / "reference.safetensors",
        protocol=out / "protocol.json",
        reports=out,
    )


def refer(folder: Path, settings: Params, out: Path) -> None:
    """Run stage reference on the images in `folder`; its outputs go to `out`."""
    inputs = {name: folder / f"{name}.safetensors" for name in ("train", "test")}
    reference(settings, **inputs, extractor=out / "extractor.safetensors", features=out / "reference.safetensors")


@pytest.fixture
def evaluated(folder: Path, tmp_path: Path) -> Evaluated:
    """Return a function that runs stage evaluate and returns its metrics; the outputs are in tmp_path."""

    def run(settings: Params, samples: Path | None = None) -> dict[str, Any]:
        judge(folder, settings, tmp_path, samples)
        return dict(json.loads((tmp_path / "metrics.json").read_text()))

    return run
