"""Interpolate between two images, as a picture like Figure 8 of the paper."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

import torch
from torch import Tensor

from ddpm import figures, files, images
from ddpm.data.fit import fit
from ddpm.data.folder import Files, ImageFile
from ddpm.errors import UsageError
from ddpm.network.modelfile import Description, Model
from ddpm.params import Data, Sample
from ddpm.sampling.interpolation import interpolate
from lab import stage


def sources(description: Description, paths: Sequence[Path], pair: tuple[int, int] | None) -> Tensor:
    """The two images, uint8 (2, C, H, W): two image files, or the pair of indices in a .safetensors file with `images`.

    Image files of another shape are cropped to a square and resized. Raises `UsageError`.
    """
    if len(paths) == 1 and pair is not None:
        return _chosen(paths[0], description.image_shape, pair)
    if len(paths) == 2 and pair is None:
        return torch.stack([_fitted(path, description.image_shape) for path in paths])
    raise UsageError(
        "--images: must be two image files, each with a separate --images, or one .safetensors with --pair"
    )


def picture(model: Model, pair: Tensor, times: Sequence[int], mixes: int, settings: Sample, out: Path) -> None:
    """Save a picture with a row for each time: the first image, `mixes` mixes of both images, the second image.

    Raises `UsageError` for values that are not allowed and for an output that cannot be written.
    """
    _check(model, times, mixes, out)
    denoiser = model.denoiser
    x_0 = images.to_float(pair, denoiser.value_range).to(denoiser.process.device)
    rows = []
    with stage.bar("interpolate", len(times), "row") as bar:
        for time in times:
            mixed = images.to_uint8(interpolate(denoiser, x_0, time, mixes, settings), denoiser.value_range)
            rows.append((f"$t={time}$", torch.cat([pair[:1], mixed.cpu(), pair[1:]])))
            bar.update()
    shares = [rf"$\lambda={share:.2g}$" for share in torch.linspace(0, 1, mixes).tolist()]
    figures.strip(out, "From one image to another, mixed at time t", ["image", *shares, "image"], rows)


def _check(model: Model, times: Sequence[int], mixes: int, out: Path) -> None:
    timesteps = model.denoiser.process.timesteps
    for time in times:
        if not 1 <= time <= timesteps:
            raise UsageError(f"--at {time}: must be between 1 and the model's {timesteps} timesteps")
    if mixes < 2:
        raise UsageError(f"--mixes {mixes}: must be at least 2, for both ends")
    if out.suffix != ".png":
        raise UsageError(f"--out {out}: must end in .png")
    files.check_writable(out)


def _chosen(path: Path, image_shape: tuple[int, int, int], pair: tuple[int, int]) -> Tensor:
    found = files.read_tensors(path).tensors.get("images")
    if found is None or tuple(found.shape[1:]) != image_shape:
        raise UsageError(f"--images {path}: contains no images of the model's shape {image_shape}")
    if not all(0 <= index < len(found) for index in pair):
        raise UsageError(f"--pair {pair[0]} {pair[1]}: the indices of {path} are 0 to {len(found) - 1}")
    return found[list(pair)]


def _fitted(path: Path, image_shape: tuple[int, int, int]) -> Tensor:
    """An image file, uint8 (C, H, W)."""
    channels: Literal[1, 3] = 1 if image_shape[0] == 1 else 3
    size = image_shape[1]
    settings = Data(source="folder", path=None, digest=None, image_size=size, channels=channels, fit="crop", seed=None)
    single = Files(path.parent, None, {}, (ImageFile(PurePosixPath(path.name), None, ""),))
    return torch.from_numpy(fit(single[0], settings).copy())
