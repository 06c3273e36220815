"""The gradient of an optimizer step: the sum over its micro-batches, which the processes share.

`Tree` adds in one fixed binary tree, so the bytes do not depend on the number of processes. `Overlapped` lets torch
reduce while the gradient is computed; its sums are equal within rounding.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ddpm.params import Conflict, ConflictError, Train
from ddpm.processes import Group

Losses = Callable[[int], Tensor]  # micro-batch 0, 1, ... to its share of the mean loss, a scalar


class Gradient(Protocol):
    """A way to compute the gradient of a step."""

    def compute(self, loss: Losses) -> Tensor:
        """Leave the gradient of the sum of all micro-batches' losses in `.grad`, and return that sum, detached."""


def of(network: nn.Module, micros: range, deterministic: bool, group: Group) -> tuple[nn.Module, Gradient]:
    """The module to call instead of `network` in training, and the way to compute its gradient.

    `micros` are the micro-batches of this process, from `shared`.
    """
    if deterministic or group.size == 1:
        return network, Tree(list(network.parameters()), micros, group)
    forward = DistributedDataParallel(network, gradient_as_bucket_view=True, broadcast_buffers=False)
    return forward, Overlapped(forward, micros, group)


def shared(settings: Train, deterministic: bool, group: Group) -> range:
    """The micro-batches of each step that this process computes: equal, consecutive parts.

    Raises `ConflictError` if the number of processes does not divide them or, for the tree, is not a power of two.
    """
    count = settings.accumulate
    allowed = [n for n in range(1, count + 1) if count % n == 0 and (not deterministic or n.bit_count() == 1)]
    if group.size not in allowed:
        rule = (
            f"{group.size} processes cannot share the micro-batches of a step equally: "
            f"{' or '.join(map(str, allowed))} can; more micro-batches allow more processes"
        )
        raise ConflictError([Conflict("train.accumulate", count, rule)])
    own = count // group.size
    return range(group.rank * own, (group.rank + 1) * own)


class Tree:
    """The sum in a binary tree over all micro-batches: halves are added as long as their number is even.

    The lower part of the tree is added within each process, the upper part by `Group.sum`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], micros: range, group: Group) -> None:
        self._parameters, self._micros, self._group = parameters, micros, group

    def compute(self, loss: Losses) -> Tensor:
        """See `Gradient`."""
        total = self._add(self._micros, loss)
        self._group.sum([total, *self._gradients()])
        return total

    def _add(self, micros: range, loss: Losses) -> Tensor:
        """Leave the sum of the gradients of some micro-batches in `.grad`; return the sum of their losses."""
        if len(micros) % 2 or len(micros) == 2:  # autograd adds each gradient to the sum of those before
            total = torch.zeros((), device=self._group.device)
            for micro in micros:
                share = loss(micro)
                share.backward()
                total += share.detach()
            return total
        middle = len(micros) // 2
        first_total = self._add(micros[:middle], loss)
        first = self._gradients()
        for parameter in self._parameters:
            parameter.grad = None
        total = first_total + self._add(micros[middle:], loss)
        torch._foreach_add_(self._gradients(), first)
        return total

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]


class Overlapped:
    """The sum by `DistributedDataParallel`, which exchanges the first gradients while it computes the next."""

    def __init__(self, forward: DistributedDataParallel, micros: range, group: Group) -> None:
        self._forward, self._micros, self._group = forward, micros, group

    def compute(self, loss: Losses) -> Tensor:
        """See `Gradient`."""
        total = torch.zeros((), device=self._group.device)
        for micro in self._micros:
            last = micro == self._micros[-1]
            with nullcontext() if last else self._forward.no_sync():
                share = loss(micro)
                (share * self._group.size).backward()  # the exchange takes the mean over processes
            total += share.detach()
        dist.all_reduce(total)
        return total
