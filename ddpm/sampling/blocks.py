"""Samples in blocks of 16 images, each block with its own seed.

Block j draws its noise from (seed, "sample", j). Image i therefore does not depend on the number of images or on the
batch size, up to the network's rounding.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ddpm import images, rng
from ddpm.network.modelfile import Model
from ddpm.params import Conflict, ConflictError, Sample
from ddpm.processes import Group
from ddpm.sampling.guidance import guide
from ddpm.sampling.samplers import State, reverse, timesteps

BLOCK = 16


class BlockNoise:
    """Draws noise (N, C, H, W) for images first..first + count - 1, where `first` starts a block."""

    def __init__(self, seed: int, first: int, count: int, shape: tuple[int, int, int], device: torch.device) -> None:
        assert first % BLOCK == 0
        blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
        self._generators = [rng.torch_generator(device, seed, "sample", block) for block in blocks]
        self._count, self._shape, self._device = count, shape, device

    def __call__(self) -> Tensor:
        """Draw standard normal noise."""
        return self.draw(lambda shape, generator: torch.randn(shape, generator=generator, device=self._device))

    def draw(self, distribution: Callable[[tuple[int, ...], torch.Generator], Tensor]) -> Tensor:
        """Draw from a distribution. Every block draws for 16 images, even if it has fewer."""
        noise = [distribution((BLOCK, *self._shape), generator) for generator in self._generators]
        return torch.cat(noise)[: self._count]


def batches(count: int, batch_size: int) -> list[tuple[int, int]]:
    """(first, count) of each batch: as many whole blocks as fit into `batch_size`, at least one."""
    size = max(batch_size // BLOCK, 1) * BLOCK
    return [(first, min(size, count - first)) for first in range(0, count, size)]


def labels(model: Model, settings: Sample, wanted: Sequence[str] | None = None) -> Tensor | None:
    """The class of each image under guidance, int64 (count,). None without guidance.

    The images have the `wanted` classes in turn, given by name or index; without them, all classes. Raises
    `ConflictError` if the model has no such class.
    """
    if settings.guidance is None:
        return None
    classes = list(model.description.classes)
    chosen = range(len(classes)) if wanted is None else [_index(label, classes) for label in wanted]
    return torch.tensor(chosen)[torch.arange(settings.count) % len(chosen)]


def _index(label: str, classes: Sequence[str]) -> int:
    known = classes if label in classes else [str(index) for index in range(len(classes))]
    if label not in known:
        listed = ", ".join(f"{index} {name}" for index, name in enumerate(classes))
        raise ConflictError([Conflict("sample.label", label, f"must be the name or index of a class: {listed}")])
    return known.index(label)


def draw(
    model: Model, settings: Sample, labels: Tensor | None = None, progress: Callable[[int], object] | None = None
) -> Tensor:
    """Sample `settings.count` images, uint8 (count, C, H, W) on the host.

    `labels` is the class of each image, int64 (count,). `progress(n)` is called after each batch of n images.
    """
    samples = []
    for batch in drawn(model, settings, labels, Group(model.denoiser.process.device)):
        samples.append(batch)
        if progress is not None:
            progress(len(batch))
    return torch.cat(samples)


def drawn(model: Model, settings: Sample, labels: Tensor | None, group: Group, done: int = 0) -> Iterator[Tensor]:
    """The batches of `draw` after the first `done` images, which are whole batches.

    The processes of the group share the batches; process 0 yields all of them in order, the others none.
    """

    def finished(batch: tuple[int, int]) -> Tensor:
        *_, last = trajectory(model, settings, *batch, labels)
        return images.to_uint8(last.x_0, model.denoiser.value_range).cpu()

    left = [(first, count) for first, count in batches(settings.count, settings.batch_size) if first >= done]
    return group.in_turn(left, finished)


@torch.no_grad()
def trajectory(model: Model, settings: Sample, first: int, count: int, labels: Tensor | None = None) -> Iterator[State]:
    """The states from pure noise to images first..first + count - 1, float32 in the model's value range.

    `first` starts a block, as in `batches`.
    """
    denoiser, process = model.denoiser, model.denoiser.process
    if labels is not None:
        denoiser = guide(denoiser, labels[first : first + count].to(process.device), settings.guidance or 0.0)
    noise = BlockNoise(settings.seed, first, count, model.description.image_shape, process.device)
    x = noise.draw(process.prior)
    yield from reverse(denoiser, settings, x, timesteps(settings, process.timesteps), noise)


def milestones(
    model: Model,
    settings: Sample,
    labels: Tensor | None,
    count: int,
    number: int,
    progress: Callable[[int], object] | None = None,
) -> list[State]:
    """At most `number` states of the first `count` images, evenly spread over their chain, including both ends.

    The other states are dropped at once, because a long chain of large images does not fit into memory. `progress(1)`
    is called after each state.
    """
    length = len(timesteps(settings, model.denoiser.process.timesteps)) + 1
    kept = set(torch.linspace(0, length - 1, min(number, length)).round().int().tolist())
    states = []
    for index, state in enumerate(trajectory(model, settings, 0, count, labels)):
        if index in kept:
            states.append(state)
        if progress is not None:
            progress(1)
    return states
