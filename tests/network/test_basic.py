"""The course's minimal U-Net: its parameter count, and its output against explicit operations."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ddpm.network.basic import BasicUNet
from ddpm.network.modelfile import Description
from ddpm.params import BasicNetwork, Gaussian, Interpolation


def network(image_channels: int, signed: bool = False, **changes: Any) -> BasicUNet:
    """A network of three levels with the course's settings by default."""
    torch.manual_seed(0)
    values = {"kind": "basic", "channels": 32, "multipliers": [1, 2, 2], "time": False, "conditional": False}
    return BasicUNet(BasicNetwork.model_validate({**values, **changes}), image_channels, signed)


def test_network_has_the_courses_parameter_count() -> None:
    assert sum(parameter.numel() for parameter in network(1).parameters()) == 309_057


def test_images_are_cast_to_the_dtype_of_the_weights() -> None:
    x, index = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0])
    found, expected = network(3).bfloat16()(x, index), network(3)(x, index)
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_network_is_six_convolutions_with_additive_skip_connections() -> None:
    net = network(3, channels=4)
    weights = list(net.parameters())

    def layer(i: int, x: Tensor) -> Tensor:
        y = conv2d(x, weights[2 * i], weights[2 * i + 1], padding=2)
        return y / (1 + torch.exp(-y))

    def halved(x: Tensor) -> Tensor:
        return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).amax((3, 5))

    def doubled(x: Tensor) -> Tensor:
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    x = torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    large = layer(0, x)
    medium = layer(1, halved(large))
    h = layer(3, layer(2, halved(medium)))
    h = layer(5, doubled(layer(4, doubled(h) + medium)) + large)
    assert len(weights) == 12
    torch.testing.assert_close(net(x, torch.tensor([0, 5])), h)


@pytest.mark.parametrize("multipliers", [[1], [1, 2], [1, 2, 3, 4]])
def test_output_has_the_shape_of_the_input(multipliers: list[int]) -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert network(3, channels=4, multipliers=multipliers)(x, torch.tensor([0, 5])).shape == x.shape


def test_output_does_not_depend_on_the_time() -> None:
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    net = network(3, channels=4)
    assert net(x, torch.tensor([0, 0])).equal(net(x, torch.tensor([7, 19])))


def test_silu_follows_the_last_convolution_unless_outputs_are_signed() -> None:
    x, index = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0])
    course, signed = network(3, channels=4)(x, index), network(3, channels=4, signed=True)(x, index)
    assert signed.min() < -0.1
    torch.testing.assert_close(course, torch.nn.functional.silu(signed))


@pytest.mark.parametrize(
    ("prediction", "low", "signed"), [("x_0", 0.0, False), ("x_0", -0.1, True), ("eps", 0.0, True), ("v", -1.0, True)]
)
def test_outputs_are_signed_where_the_predicted_values_are(
    prediction: str, low: float, signed: bool, diffusion_settings: Gaussian
) -> None:
    diffusion = diffusion_settings.model_copy(update={"prediction": prediction, "value_range": [low, 1.0]})
    settings = BasicNetwork(kind="basic", channels=4, multipliers=[1], time=False, conditional=False)
    built = Description(diffusion, settings, (1, 8, 8), ["a"]).build()
    torch.nn.init.constant_(built.up[0].get_parameter("bias"), -9.0)
    assert (built(torch.zeros(1, 1, 8, 8), torch.tensor([0])).min() < -1) == signed


def test_the_courses_process_keeps_the_courses_network() -> None:
    course = Interpolation(
        process="interpolation", timesteps=9, prediction="x_0", variance="fixed", value_range=[0.0, 1.0]
    )
    settings = BasicNetwork(kind="basic", channels=4, multipliers=[1], time=False, conditional=False)
    torch.manual_seed(0)
    built = Description(course, settings, (3, 8, 8), ["a"]).build()
    x, index = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([0])
    assert built(x, index).equal(network(3, channels=4, multipliers=[1])(x, index))
