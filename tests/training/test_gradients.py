"""The gradient of a step: one binary tree, whatever process computes which micro-batches."""

from collections.abc import Callable, Sequence
from functools import reduce

import pytest
import torch
from torch import Tensor, nn

from ddpm.params import ConflictError, Train
from ddpm.processes import Group
from ddpm.training.gradients import Tree, shared
from tests.training.runs import CPU


class Part(Group):
    """A process that adds nothing: it computes its own part of the tree."""

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Leave the tensors as they are."""


@pytest.fixture
def settings(train_settings: Train) -> Callable[[int], Train]:
    return lambda micros: train_settings.model_copy(update={"accumulate": micros, "batch_size": micros})


def gradient(values: Tensor, micros: range) -> tuple[Tensor, Tensor]:
    """The loss and the gradient that the tree computes if micro-batch m has the gradient `values[m]`."""
    weight = nn.Parameter(torch.zeros(values.shape[1]))
    total = Tree([weight], micros, Part(CPU)).compute(lambda micro: (weight * values[micro]).sum() + values[micro, 0])
    assert weight.grad is not None
    return total, weight.grad


def in_order(values: Tensor) -> Tensor:
    """The sum from left to right."""
    return reduce(torch.add, values)


def in_tree(values: Tensor) -> Tensor:
    """The definition: halves as long as their number is even, else from left to right."""
    if len(values) % 2:
        return in_order(values)
    first, second = values.chunk(2)
    return in_tree(first) + in_tree(second)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 8, 12, 16])
def test_gradients_and_losses_are_added_in_the_tree(count: int) -> None:
    values = torch.randn(count, 50, generator=torch.Generator().manual_seed(count))
    total, found = gradient(values, range(count))
    assert torch.equal(found, in_tree(values))
    assert torch.equal(total, in_tree(values)[0])


@pytest.mark.parametrize("processes", [2, 4])
def test_parts_of_processes_add_up_to_the_bytes_of_one_process(
    processes: int, settings: Callable[[int], Train]
) -> None:
    values = torch.randn(12, 50, generator=torch.Generator().manual_seed(0))
    whole = gradient(values, range(12))[1]
    parts = [shared(settings(12), True, Group(CPU, rank, processes)) for rank in range(processes)]
    assert [micro for part in parts for micro in part] == list(range(12))
    assert torch.equal(in_tree(torch.stack([gradient(values, part)[1] for part in parts])), whole)
    assert not torch.equal(in_order(values), whole)  # the order matters in the last digits


@pytest.mark.parametrize(
    ("micros", "deterministic", "allowed"),
    [(1, True, "1"), (6, True, "1 or 2"), (8, True, "1 or 2 or 4 or 8"), (6, False, "1 or 2 or 3 or 6")],
)
def test_a_number_of_processes_that_cannot_share_is_refused_and_the_others_are_named(
    micros: int, deterministic: bool, allowed: str, settings: Callable[[int], Train]
) -> None:
    with pytest.raises(ConflictError, match=f"train.accumulate = {micros}: 5 processes .* equally: {allowed} can"):
        shared(settings(micros), deterministic, Group(CPU, 0, 5))
