"""Samples in blocks of 16 images with seeds of their own.

Block j draws its noise from (seed, "sample", j), so image i is the same however many are drawn, in whatever batches,
up to rounding of the network.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ddpm import images, rng
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network.modelfile import Model
from ddpm.params import Sample
from ddpm.sampling import ancestral, ddim, dpm_solver
from ddpm.sampling.guidance import guide
from ddpm.sampling.state import State
from ddpm.sampling.timesteps import timesteps

BLOCK = 16
Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]


class BlockNoise:
    """Noise (N, C, H, W) for images first..first + count - 1, where `first` starts a block."""

    def __init__(self, seed: int, first: int, count: int, shape: tuple[int, int, int], device: torch.device) -> None:
        assert first % BLOCK == 0
        blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
        self._generators = [rng.torch_generator(device, seed, "sample", block) for block in blocks]
        self._count, self._shape, self._device = count, shape, device

    def __call__(self) -> Tensor:
        """The next draw of standard normal noise."""
        return self.draw(lambda shape, generator: torch.randn(shape, generator=generator, device=self._device))

    def draw(self, distribution: Draw) -> Tensor:
        """The next draw from a distribution: every block draws for 16 images, also when fewer are wanted."""
        drawn = [distribution((BLOCK, *self._shape), generator) for generator in self._generators]
        return torch.cat(drawn)[: self._count]


def batches(count: int, batch_size: int) -> list[tuple[int, int]]:
    """(first, count) of each batch: as many whole blocks as fit into `batch_size`, at least one."""
    size = max(batch_size // BLOCK, 1) * BLOCK
    return [(first, min(size, count - first)) for first in range(0, count, size)]


def labels(model: Model, settings: Sample) -> Tensor | None:
    """The class asked of each image under guidance, int64 (count,): all classes in turn. None without guidance."""
    if settings.guidance is None:
        return None
    return torch.arange(settings.count) % len(model.description.classes)


def draw(
    model: Model, settings: Sample, asked: Tensor | None = None, progress: Callable[[int], object] | None = None
) -> Tensor:
    """All `settings.count` images, uint8 (count, C, H, W) on the host; `progress` hears how many are new.

    `asked` is the class of each image, int64 (count,), as `labels` gives it.
    """
    drawn = []
    for first, count in batches(settings.count, settings.batch_size):
        *_, last = trajectory(model, settings, first, count, asked)
        drawn.append(images.to_uint8(last.x_0, model.denoiser.value_range).cpu())
        if progress is not None:
            progress(count)
    return torch.cat(drawn)


@torch.no_grad()
def trajectory(model: Model, settings: Sample, first: int, count: int, asked: Tensor | None = None) -> Iterator[State]:
    """The states from pure noise to images first..first + count - 1, float32 in the model's value range.

    `first` must be the beginning of a block, as `batches` gives it.
    """
    denoiser, process = model.denoiser, model.denoiser.process
    if asked is not None:
        denoiser = guide(denoiser, asked[first : first + count].to(process.device), settings.guidance or 0.0)
    noise = BlockNoise(settings.seed, first, count, model.description.image_shape, process.device)
    x = noise.draw(process.prior)
    yield from reverse(denoiser, settings, x, timesteps(settings, process.timesteps), noise)


def milestones(
    model: Model,
    settings: Sample,
    asked: Tensor | None,
    count: int,
    number: int,
    progress: Callable[[int], object] | None = None,
) -> list[State]:
    """At most `number` states of the first images, evenly spread over their chain, its first and last included.

    The others are dropped at once: a long chain of large images does not fit into memory. `progress` hears of each.
    """
    length = len(timesteps(settings, model.denoiser.process.timesteps)) + 1
    kept = set(torch.linspace(0, length - 1, min(number, length)).round().int().tolist())
    found = []
    for place, state in enumerate(trajectory(model, settings, 0, count, asked)):
        if place in kept:
            found.append(state)
        if progress is not None:
            progress(1)
    return found


def reverse(
    denoiser: Denoiser, settings: Sample, x: Tensor, times: Sequence[int], noise: Callable[[], Tensor]
) -> Iterator[State]:
    """The states of the sampler that `settings` names, from x at times[0] along falling `times` to the image."""
    match settings.sampler:
        case "ancestral":
            yield from ancestral.sample(denoiser, x, times, noise, settings.sigma, settings.clip)
        case "ddim":
            assert settings.eta is not None
            yield from ddim.sample(denoiser, x, times, noise, settings.eta, settings.clip)
        case "dpm_solver":
            yield from dpm_solver.sample(denoiser, x, times, settings.clip)
