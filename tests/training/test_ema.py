"""The moving average against its closed form."""

import torch
from torch import nn

from ddpm.training.ema import MovingAverage


def filled(value: float) -> nn.Sequential:
    """A small network with all its weights at one value."""
    network = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 5))
    fill(network, value)
    return network


def fill(network: nn.Module, value: float) -> None:
    for parameter in network.parameters():
        nn.init.constant_(parameter, value)


def test_average_of_a_constant_approaches_it_geometrically() -> None:
    network = filled(3.0)
    average = MovingAverage(network, decay=0.9)
    fill(network, 5.0)
    for k in range(1, 8):
        average.update()
        for parameter in average.network.parameters():
            torch.testing.assert_close(parameter, torch.full_like(parameter, 0.9**k * 3 + (1 - 0.9**k) * 5))


def test_average_weighs_each_past_weight_by_its_age() -> None:
    network = filled(0.0)
    average = MovingAverage(network, decay=0.75)
    for value in (8.0, 4.0, 16.0):
        fill(network, value)
        average.update()
    expected = 0.25 * (16 + 0.75 * 4 + 0.75**2 * 8)
    for parameter in average.network.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected))


def test_average_starts_as_a_copy_with_weights_of_its_own() -> None:
    network = filled(3.0)
    average = MovingAverage(network, decay=0.9)
    fill(network, 5.0)
    for parameter in average.network.parameters():
        assert (parameter == 3).all()


def test_update_leaves_the_trained_weights_alone() -> None:
    network = filled(3.0)
    average = MovingAverage(network, decay=0.5)
    fill(network, 5.0)
    average.update()
    assert all((parameter == 5).all() for parameter in network.parameters())


def test_average_evaluates_and_takes_no_gradients_while_the_network_trains() -> None:
    network = filled(3.0)
    average = MovingAverage(network, decay=0.5)
    assert not any(module.training for module in average.network.modules())
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_no_decay_copies_the_trained_weights() -> None:
    network = filled(3.0)
    average = MovingAverage(network, decay=0.0)
    fill(network, 5.0)
    average.update()
    assert all((parameter == 5).all() for parameter in average.network.parameters())
