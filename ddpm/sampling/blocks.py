"""Samples in blocks of 16 images with seeds of their own.

Block j draws its noise from (seed, "sample", j), so image i is the same however many are drawn, in whatever batches,
up to rounding of the network.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ddpm import images, rng
from ddpm.network.modelfile import Model
from ddpm.params import Sample
from ddpm.sampling import ancestral, ddim
from ddpm.sampling.state import State
from ddpm.sampling.timesteps import timesteps

BLOCK = 16


class BlockNoise:
    """Standard normal noise (N, C, H, W) for images first..first + count - 1, where `first` starts a block."""

    def __init__(self, seed: int, first: int, count: int, shape: tuple[int, int, int], device: torch.device) -> None:
        assert first % BLOCK == 0
        blocks = range(first // BLOCK, -(-(first + count) // BLOCK))
        self._generators = [rng.torch_generator(device, seed, "sample", block) for block in blocks]
        self._count, self._shape, self._device = count, shape, device

    def __call__(self) -> Tensor:
        """The next draw: every block draws for 16 images, also when fewer are wanted."""
        drawn = [
            torch.randn((BLOCK, *self._shape), generator=generator, device=self._device)
            for generator in self._generators
        ]
        return torch.cat(drawn)[: self._count]


def batches(count: int, batch_size: int) -> list[tuple[int, int]]:
    """(first, count) of each batch: as many whole blocks as fit into `batch_size`, at least one."""
    size = max(batch_size // BLOCK, 1) * BLOCK
    return [(first, min(size, count - first)) for first in range(0, count, size)]


def draw(model: Model, settings: Sample, progress: Callable[[int], object] | None = None) -> Tensor:
    """All `settings.count` images, uint8 (count, C, H, W) on the host; `progress` hears how many are new."""
    drawn = []
    for first, count in batches(settings.count, settings.batch_size):
        *_, last = trajectory(model, settings, first, count)
        drawn.append(images.to_uint8(last.x_0, model.denoiser.value_range).cpu())
        if progress is not None:
            progress(count)
    return torch.cat(drawn)


@torch.no_grad()
def trajectory(model: Model, settings: Sample, first: int, count: int) -> Iterator[State]:
    """The states from pure noise to images first..first + count - 1, float32 in the model's value range.

    `first` must be the beginning of a block, as `batches` gives it.
    """
    denoiser = model.denoiser
    device = denoiser.process.alpha_bar.device
    noise = BlockNoise(settings.seed, first, count, model.description.image_shape, device)
    times = timesteps(settings, denoiser.process.timesteps)
    if settings.sampler == "ddim":
        assert settings.eta is not None
        yield from ddim.sample(denoiser, noise(), times, noise, settings.eta, settings.clip)
    else:
        assert settings.sigma is not None
        yield from ancestral.sample(denoiser, noise(), times, noise, settings.sigma, settings.clip)
