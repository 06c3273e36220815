"""The training loss of a model on both splits."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from ddpm import images, params
from ddpm.data.dataset import Dataset
from ddpm.evaluation import losses
from ddpm.network import modelfile
from ddpm.network.modelfile import Description, Model
from ddpm.params import Params
from ddpm.training import objective
from tests.evaluation.conftest import stripes
from tests.imports import ROOT

CPU = torch.device("cpu")
CLASSES = ["rows", "columns"]


class Recorded(nn.Module):
    """A network that returns zeros and keeps the inputs of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[dict[str, Any]] = []

    def forward(self, x_t: Tensor, index: Tensor, labels: Tensor | None = None) -> Tensor:
        self.calls.append({"x_t": x_t, "t": index + 1, "labels": labels})
        return torch.zeros_like(x_t)

    def seen(self, key: str) -> Tensor:
        return torch.cat([call[key] for call in self.calls])


def settings(**changes: Any) -> Params:
    """The default parameters with tiny values and changes by dotted keys."""
    values = yaml.safe_load((ROOT / "recipes/default.yaml").read_text(encoding="utf-8"))
    tiny = {"diffusion.timesteps": 30, "network.channels": 8, "network.groups": 4, "sample.steps": 5}
    for key, value in {**tiny, **changes}.items():
        section, name = key.split(".")
        values[section][name] = value
    return params.check(values)


def model(chosen: Params, network: nn.Module) -> Model:
    description = Description(chosen.diffusion, chosen.network, (1, 8, 8), CLASSES)
    return modelfile.assemble(description, network, "digest", CPU)


def split(count: int, seed: int) -> Dataset:
    made = stripes(count, 1, seed)
    return Dataset(made.images, made.labels, CLASSES, "", {})


def test_the_loss_is_that_of_training_on_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, data = settings(), split(260, 0)
    drawn: list[tuple[Tensor, Tensor, Tensor]] = []

    def recorded(denoiser: Any, x_0: Tensor, t: Tensor, eps: Tensor, of: params.Train) -> Tensor:
        drawn.append((x_0, t, eps))
        return objective.loss(denoiser, x_0, t, eps, of)

    monkeypatch.setattr(losses, "loss_of", recorded)
    zeros = model(chosen, Recorded())
    measured = losses.measure(zeros, data, 250, chosen.train, 0, 300)
    x_0, t, eps = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    assert measured == pytest.approx(float(eps.square().mean()), rel=1e-5)  # the network predicts eps as zero
    assert measured == pytest.approx(1, abs=0.02)
    assert len(x_0) == 2000
    assert torch.equal(torch.bincount(t)[1:].clamp(66, 67), torch.bincount(t)[1:])  # 30 times share 2000 draws
    real = {image.numpy().tobytes() for image in images.to_float(data.images, [-1.0, 1.0])}
    shown = {image.numpy().tobytes() for image in x_0}
    assert len(shown) == 250
    assert shown < real
    assert len(set(t[:250].tolist())) == 30  # in random order


def test_both_splits_have_the_same_times_and_noise() -> None:
    chosen, network = settings(), Recorded()
    same = split(20, 0)
    found, protocol = losses.compare(model(chosen, network), same, same, chosen.train, 0, 256)
    assert found["train"] == found["test"]
    half = len(network.calls) // 2
    for first, second in zip(network.calls[:half], network.calls[half:], strict=True):
        assert torch.equal(first["t"], second["t"])
        assert torch.equal(first["x_t"], second["x_t"])
    assert protocol == {"loss_images": 20, "loss_draws": 160}


def test_as_many_training_images_as_test_images_are_chosen_from_the_whole_split() -> None:
    chosen, network = settings(), Recorded()
    train = split(40, 1)
    _, protocol = losses.compare(model(chosen, network), train, split(5, 2), chosen.train, 0, 256)
    assert protocol["loss_images"] == 5
    first, second = (losses.measure(model(chosen, Recorded()), train, 5, chosen.train, seed, 256) for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize("conditional", [True, False])
def test_a_conditional_network_is_given_the_true_label_of_every_image(conditional: bool) -> None:
    chosen, network, data = settings(**{"network.conditional": conditional}), Recorded(), split(12, 0)
    losses.measure(model(chosen, network), data, 12, chosen.train, 0, 256)
    if conditional:
        assert torch.equal(network.seen("labels"), data.labels[torch.arange(96) % 12])
    else:
        assert {call["labels"] for call in network.calls} == {None}


@pytest.mark.parametrize(
    "changes",
    [
        {"train.loss": "vlb"},
        {"train.loss": "hybrid", "diffusion.variance": "learned_range"},
        {"train.weighting": "min_snr", "diffusion.prediction": "v"},
        {"diffusion.process": "interpolation", "network.kind": "basic"},
        {"network.dropout": 0.5},
    ],
)
def test_every_kind_of_loss_is_finite_for_any_batch_size(changes: dict[str, Any], tmp_path: Path) -> None:
    chosen = settings(**changes)
    description = Description(chosen.diffusion, chosen.network, (1, 8, 8), CLASSES)
    torch.manual_seed(0)
    modelfile.save(tmp_path / "model.safetensors", description, description.build().state_dict())
    loaded, data = modelfile.load(tmp_path / "model.safetensors"), split(20, 0)
    large, small = (losses.measure(loaded, data, 20, chosen.train, 0, size) for size in (160, 77))
    assert 0 < large < 100
    assert large == pytest.approx(small, rel=1e-4)
