"""Classifier-free guidance with networks of constant output."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network.unet import UNet
from ddpm.params import Gaussian, UNetNetwork
from ddpm.sampling.guidance import guide

LABELS = torch.tensor([1, 4])
T = torch.tensor([3, 20])


def images(seed: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 8, 16, generator=torch.Generator().manual_seed(seed))


def constant(conditional: Tensor, unconditional: Tensor) -> tuple[Callable[..., Tensor], list[Tensor | None]]:
    """A network with one output for any label and one without a label, and the labels of its calls."""
    calls: list[Tensor | None] = []

    def network(_x: Tensor, _index: Tensor, labels: Tensor | None = None) -> Tensor:
        calls.append(labels)
        return unconditional if labels is None else conditional

    return network, calls


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_guided_output_is_equation_6(diffusion_settings: Gaussian, weight: float) -> None:
    network, _ = constant(images(0), images(1))
    denoiser = Denoiser(network, process.from_settings(diffusion_settings), diffusion_settings)
    guided, variance = guide(denoiser, LABELS, weight).output(images(2), T)
    torch.testing.assert_close(guided, (1 + weight) * images(0) - weight * images(1))
    assert variance is None


def test_weight_0_evaluates_the_network_once_with_the_labels(diffusion_settings: Gaussian) -> None:
    network, calls = constant(images(0), images(1))
    denoiser = Denoiser(network, process.from_settings(diffusion_settings), diffusion_settings)
    guided, _ = guide(denoiser, LABELS, 0.0).output(images(2), T)
    assert guided.equal(images(0))
    assert len(calls) == 1
    assert calls[0] is LABELS


def test_learned_variance_is_that_of_the_label(diffusion_settings: Gaussian) -> None:
    settings = diffusion_settings.model_copy(update={"variance": "learned_range"})
    conditional, unconditional = images(0, 6), images(1, 6)
    network, _ = constant(conditional, unconditional)
    denoiser = Denoiser(network, process.from_settings(settings), settings)
    guided, variance = guide(denoiser, LABELS, 2.0).output(images(2), T)
    torch.testing.assert_close(guided, 3 * conditional[:, :3] - 2 * unconditional[:, :3])
    torch.testing.assert_close(variance, conditional[:, 3:])


@pytest.mark.parametrize("prediction", ["x_0", "v", "mu"])
def test_guiding_any_prediction_guides_the_noise(diffusion_settings: Gaussian, prediction: str) -> None:
    settings = diffusion_settings.model_copy(update={"prediction": prediction})
    network, _ = constant(images(0), images(1))
    denoiser = Denoiser(network, process.from_settings(settings), settings)
    x_t = images(2)
    conditional, unconditional = denoiser.given(LABELS)(x_t, T, clip=False), denoiser(x_t, T, clip=False)
    expected = 3 * conditional.eps - 2 * unconditional.eps
    torch.testing.assert_close(guide(denoiser, LABELS, 2.0)(x_t, T, clip=False).eps, expected, rtol=1e-3, atol=1e-3)


def test_no_label_is_the_last_class_of_the_network(diffusion_settings: Gaussian, network_settings: UNetNetwork) -> None:
    torch.manual_seed(0)
    network = UNet(network_settings.model_copy(update={"conditional": True}), 3, 8, 3, 5)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    denoiser = Denoiser(network, process.from_settings(diffusion_settings), diffusion_settings)
    x_t = images(2)[..., :8]
    guided, _ = guide(denoiser, LABELS, 2.0).output(x_t, T)
    with_label, without = (network(x_t, T - 1, labels) for labels in (LABELS, torch.tensor([5, 5])))
    torch.testing.assert_close(guided, 3 * with_label - 2 * without)
