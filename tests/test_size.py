"""The closed forms for networks equal what the modules have and what autograd keeps."""

from typing import Any

import pytest
import torch
from torch import nn

from ddpm.evaluation.extractor import ClassifierNetwork
from ddpm.network.basic import BasicUNet
from ddpm.network.unet import UNet
from ddpm.params import BasicNetwork, Classifier, UNetNetwork, check
from ddpm.size import classifier_size, network_size
from tests.test_params import changed


def parameters(network: nn.Module) -> int:
    return sum(weights.numel() for weights in network.parameters())


def saved(network: nn.Module, *inputs: torch.Tensor) -> int:
    """The bytes of all memory that autograd keeps for the backward pass, without weights and running statistics."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = network(*inputs)
    assert result is not None
    return sum(storage.nbytes() for pointer, storage in kept.items() if pointer not in own)


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize(
    ("changes", "shape", "learned", "classes"),
    [
        ({"channels": 32, "groups": 8, "heads": 1}, (1, 8), False, 0),  # the default recipe, for digits
        (
            {
                "dropout": 0.1,
                "conditional": True,
                "heads": 4,
                "multipliers": [1, 2, 1],
                "downsample": "symmetric",
                "blocks": 2,
                "attention": [8, 4],
            },
            (3, 16),
            True,
            10,
        ),
        ({"multipliers": [2, 1], "time": False}, (3, 2), False, 0),
        ({"channels": 48, "groups": 16, "multipliers": [1, 1, 2], "attention": [16, 4]}, (1, 16), False, 0),
        ({"multipliers": [1], "attention": []}, (1, 5), False, 0),
    ],
)
def test_the_size_of_a_unet_is_that_of_its_module(
    network_settings: UNetNetwork,
    changes: dict[str, Any],
    shape: tuple[int, int],
    learned: bool,
    classes: int,
    images: int,
) -> None:
    (channels, side), settings = shape, network_settings.model_copy(update=changes)
    network = UNet(settings, channels, side, channels * (1 + learned), classes).train()
    size = network_size(settings, channels, side, learned, classes)
    index = torch.zeros(images, dtype=torch.int64)
    inputs = (torch.randn(images, channels, side, side), index, *([index] if settings.conditional else []))
    assert size.parameters == parameters(network)
    assert size.saved_for(images) == saved(network, *inputs)


@pytest.mark.parametrize(
    ("multipliers", "channels", "side"), [([1, 2, 2], 1, 28), ([1], 3, 5), ([2, 1], 3, 8), ([1, 2, 3, 4], 1, 16)]
)
def test_the_size_of_the_basic_network_is_that_of_its_module(multipliers: list[int], channels: int, side: int) -> None:
    settings = BasicNetwork(kind="basic", channels=16, multipliers=multipliers, time=False, conditional=False)
    network, size = BasicUNet(settings, channels, signed=False), network_size(settings, channels, side, False, 0)
    assert size.parameters == parameters(network)
    assert size.saved_for(2) == saved(network, torch.randn(2, channels, side, side), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize(("channels", "side"), [(1, 8), (1, 28), (3, 5), (3, 32)])
def test_the_size_of_the_classifier_is_that_of_its_module(channels: int, side: int) -> None:
    settings = Classifier(channels=16, steps=1, batch_size=2, learning_rate=0.1)
    network, size = ClassifierNetwork(channels, 7, 16).train(), classifier_size(settings, channels, side, 7)
    assert size.parameters == parameters(network)
    assert size.saved_for(3) == saved(network, torch.randint(0, 256, (3, channels, side, side), dtype=torch.uint8))


@pytest.mark.parametrize(
    ("channels", "side", "multipliers", "count"),
    [(3, 32, [1, 2, 2, 2], 35_746_307), (3, 256, [1, 1, 2, 2, 4, 4], 113_673_219)],
)
def test_the_networks_of_the_paper_have_the_authors_parameter_counts(
    network_settings: UNetNetwork, channels: int, side: int, multipliers: list[int], count: int
) -> None:
    paper = {"channels": 128, "multipliers": multipliers, "blocks": 2, "attention": [16], "heads": 1, "groups": 32}
    settings = network_settings.model_copy(update=paper)
    assert network_size(settings, channels, side, False, 0).parameters == count


def test_the_default_recipe_has_the_size_of_the_network_that_it_trains() -> None:
    chosen = check(changed({}))
    network = UNet(chosen.network, 1, 8, 1, 10)  # type: ignore[arg-type] # it is a U-Net
    assert network_size(chosen.network, 1, 8, False, 10).parameters == parameters(network)


@pytest.mark.parametrize("side", [8, 16])
def test_a_forward_pass_without_gradients_holds_about_the_estimated_memory(
    network_settings: UNetNetwork, side: int
) -> None:
    """The peak is measured by torch's profiler, as the sum of all that is allocated at once."""
    settings = network_settings.model_copy(update={"channels": 32, "groups": 8, "heads": 1, "blocks": 2})
    network = UNet(settings, 3, side, 3, 0).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    images = torch.randn(32, 3, side, side).to(memory_format=torch.channels_last)
    with torch.no_grad():
        network(images, torch.zeros(1, dtype=torch.int64))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            network(images, torch.zeros(1, dtype=torch.int64))
    alive = peak = 0
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    estimated = 32 * network_size(settings, 3, side, False, 0).alive
    assert peak == pytest.approx(estimated, rel=0.25)
