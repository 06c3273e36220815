"""Pictures of sampling: grids of samples, the chain from noise to images, and the forward process.

The pictures of the pipeline have a limited number of pixels, so that the report that contains them stays small.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddpm import figures, images, rng
from ddpm.network.modelfile import Model
from ddpm.params import Sample
from ddpm.sampling import blocks, options
from ddpm.sampling.options import Options

if TYPE_CHECKING:
    from PIL import Image

TIMES = 10  # columns of the strips
IN_STRIP = 4  # images in the strips
_SMALL = 48  # pixels; larger images are shown in a smaller grid
_SHEET = 148_000  # pixels of a grid, before small images are enlarged
_MOVING = 230_000  # pixels of all frames of an animation, before small images are enlarged
_IN_ANIMATION = 9
_FRAMES = 32
_PREVIEW_STEPS = 20


def save_grid(shown: Tensor, path: Path) -> None:
    """Save the first images, uint8 (N, C, H, W), as a grid of at most 10 x 10, or 6 x 6 if they are large."""
    columns = sheet_columns(shown)
    figures.save(figures.grid(shown[: columns**2], columns, _SHEET), path)


def sheet_columns(shown: Tensor) -> int:
    """The number of columns in `save_grid` for images (N, C, H, W)."""
    return 10 if shown.shape[-1] <= _SMALL else 6


def save_denoising(model: Model, settings: Sample, labels: Tensor | None, path: Path) -> None:
    """Save x_t and the predicted x_0 of the first samples at ten times of their chain."""
    states = blocks.milestones(model, settings, labels, min(IN_STRIP, settings.count), TIMES)
    _strip(path, "From noise to samples", model, [(s.t, s.x_t, s.x_0) for s in states])


def save_trajectory(model: Model, settings: Sample, labels: Tensor | None, path: Path) -> None:
    """Save x_t of the first samples along their chain as an animation, with fewer or smaller images if needed."""
    pixels = math.prod(model.description.image_shape[1:]) * _FRAMES
    count = math.isqrt(min(max(_MOVING // pixels, 1), _IN_ANIMATION, settings.count)) ** 2  # a square grid
    animate(model, settings, labels, count, _FRAMES, path, pixels=_MOVING)


def animate(
    model: Model,
    settings: Sample,
    labels: Tensor | None,
    count: int,
    frames: int,
    path: Path,
    progress: Callable[[int], object] | None = None,
    pixels: int | None = None,
) -> None:
    """Save x_t of the first `count` samples as an animation of at most `frames` frames, and of at most `pixels` pixels.

    `progress(1)` is called after each step of the chain.
    """
    states = blocks.milestones(model, settings, labels, count, frames, progress)
    shown = torch.stack([images.to_uint8(state.x_t, model.denoiser.value_range).cpu() for state in states])
    figures.animation(shown, figures.columns_of(count), path, pixels)


@torch.no_grad()
def save_noising(model: Model, real: Tensor, seed: int, path: Path) -> None:
    """Save x_t of real images, uint8 (N, C, H, W), at ten times, and the x_0 predicted from each."""
    process = model.denoiser.process
    x_0 = images.to_float(real[:IN_STRIP].to(process.device), model.denoiser.value_range)
    eps = process.prior(tuple(x_0.shape), rng.torch_generator(process.device, seed, "noising"))
    columns = []
    for time in torch.linspace(1, process.timesteps, TIMES).round().int().tolist():
        t = torch.full((len(x_0),), time, device=process.device)
        x_t = process.q_sample(x_0, t, eps)
        columns.append((time, x_t, model.denoiser(x_t, t, clip=True).x_0))
    _strip(path, "From test images to noise, and the x_0 that the network predicts", model, columns)


def _strip(path: Path, title: str, model: Model, columns: list[tuple[int, Tensor, Tensor]]) -> None:
    """Columns are (t, x_t, predicted x_0) with tensors (N, C, H, W); each image takes two rows."""
    rows = []
    for index in range(len(columns[0][1])):
        noisy = torch.stack([x_t[index] for _, x_t, _ in columns])
        predicted = torch.stack([x_0[index] for _, _, x_0 in columns])
        for label, row in (("$x_t$", noisy), (r"$\hat{x}_0$", predicted)):
            rows.append((label, images.to_uint8(row, model.denoiser.value_range).cpu()))
    figures.strip(path, title, [f"$t={t}$" for t, *_ in columns], rows)


def preview(model: Model) -> "Image.Image":
    """A grid of 16 samples from a short DDIM chain. The noise is always the same, so that previews are comparable."""
    steps = min(_PREVIEW_STEPS, model.denoiser.process.timesteps)
    settings = options.settings(model.description, Options(count=blocks.BLOCK, steps=steps, eta=0.0))
    return figures.grid(blocks.draw(model, settings), columns=8)
