"""A training step in one of several processes that torchrun has started: what `scale` measures.

Process 0 writes the seconds of each case in each round, and the sha256 of the weights after the steps of the tree, as
JSON to the file that --json names.
"""

import argparse
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks import recipes, results, timing
from ddpm import device as devices
from ddpm import processes
from ddpm.data.batches import Batches
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.params import Params
from ddpm.processes import Group
from ddpm.training import gradients, loop
from ddpm.training.gradients import Gradient, Losses, Tree

CASES = ("tree", "waiting only", "exchange alone", "overlapped", "all_reduce alone")
_ENDLESS = 10**9  # optimizer steps


class InStep:
    """The gradient of this process alone. At each step the processes wait for each other, as for an exchange."""

    def __init__(self, own: Tree) -> None:
        self._own = own

    def compute(self, loss: Losses) -> Tensor:
        """See `Gradient`."""
        total = self._own.compute(loss)
        dist.barrier()
        return total


def stepping(
    params: Params, group: Group, make: Callable[[nn.Module], tuple[nn.Module, Gradient]]
) -> tuple[nn.Module, Callable[[], object]]:
    """A new network, and a function that takes one step of the real training loop with the gradient that is made."""
    described = recipes.description(params)
    network = recipes.network(described).to(group.device)
    network.to(memory_format=devices.memory_format(group.device, params.train.precision))
    learner = loop.Learner.start(network, params.train)
    forward, gradient = make(network)
    denoiser = Denoiser(forward, process.from_settings(params.diffusion, group.device), params.diffusion)
    batches = Batches(recipes.dataset(described), params.train, params.diffusion.value_range, group.device)
    return network, partial(next, loop.train(learner, denoiser, batches, params.train, gradient))


def exchange(group: Group, count: int) -> Callable[[], None]:
    """A function that sends and receives as much as `Group.sum` of so many numbers, and adds and copies nothing."""
    sent, received = (torch.zeros(count, device=group.device) for _ in range(2))
    parts = [(2**level, count // 2 ** (level + 1)) for level in range(group.size.bit_length() - 1)]

    def run() -> None:
        for distance, length in [*parts, *reversed(parts)]:
            partner = group.rank ^ distance
            pair = [
                dist.P2POp(dist.isend, sent[:length], partner),
                dist.P2POp(dist.irecv, received[:length], partner),
            ]
            for work in dist.batch_isend_irecv(pair):
                work.wait()

    return run


def cases(params: Params, group: Group) -> tuple[nn.Module, dict[str, Callable[[], object]]]:
    """The network that the tree trains, and the cases by name; one process has only the tree."""
    micros = gradients.shared(params.train, True, group)
    made = partial(gradients.of, micros=micros, group=group)
    network, tree = stepping(params, group, partial(made, deterministic=True))
    if group.size == 1:
        return network, {"tree": tree}

    def alone(module: nn.Module) -> tuple[nn.Module, Gradient]:
        return module, InStep(Tree(list(module.parameters()), micros, Group(group.device)))

    count = sum(weights.numel() for weights in network.parameters())
    flat = torch.zeros(count, device=group.device)
    functions: list[Callable[[], object]] = [
        tree,
        stepping(params, group, alone)[1],
        exchange(group, count),
        stepping(params, group, partial(made, deterministic=False))[1],
        partial(_all_reduce, flat),
    ]
    return network, dict(zip(CASES, functions, strict=True))


def _all_reduce(flat: Tensor) -> None:
    dist.all_reduce(flat)


def digest(network: nn.Module) -> str:
    """The sha256 of all weights."""
    found = hashlib.sha256()
    for weights in network.state_dict().values():
        found.update(weights.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def main(argv: Sequence[str] | None = None) -> None:
    """Measure as one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=recipes.SIZES, required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--accumulate", type=int, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(argv)
    changes = {
        "train.batch_size": options.batch,
        "train.accumulate": options.accumulate,
        "train.precision": options.precision,
        "train.steps": _ENDLESS,
        "runtime.device": options.device,
        "runtime.threads": options.threads,
    }
    params = recipes.settings(recipes.SIZES[options.network].recipe, changes)
    group = processes.join(params.runtime)
    network, made = cases(params, group)
    durations = timing.interleaved(made, group.device, options.rounds, options.calls)
    if group.rank == 0:
        results.write(options.json, {"seconds": dict(durations.seconds), "digest": digest(network)})
    processes.leave()


if __name__ == "__main__":
    main()
