"""The way from one image to another, as a picture like the paper's Figure 8."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm import figures, files, images
from ddpm.data.fit import fit
from ddpm.data.folder import Files, ImageFile
from ddpm.errors import UsageError
from ddpm.network.modelfile import Description, Model
from ddpm.params import Data, Sample
from ddpm.sampling.interpolation import interpolate


def sources(description: Description, files: Sequence[Path], pair: tuple[int, int] | None) -> Tensor:
    """The two images, uint8 (2, C, H, W): those of two image files, or a pair of a .safetensors with `images`.

    Pictures of another size lose their margins. Raises `UsageError`.
    """
    if len(files) == 1 and pair is not None:
        return _chosen(files[0], description.image_shape, pair)
    if len(files) == 2 and pair is None:
        return torch.stack([_fitted(file, description.image_shape) for file in files])
    raise UsageError("--images: must be two image files, each after its own --images, or one .safetensors with --pair")


def picture(model: Model, pair: Tensor, times: Sequence[int], mixes: int, chosen: Sample, out: Path) -> None:
    """Write a row for each time: an image, the mixes from its reconstruction to the other's, and the other image."""
    timesteps = model.denoiser.process.timesteps
    for time in times:
        if not 1 <= time <= timesteps:
            raise UsageError(f"--at {time}: must be between 1 and the model's {timesteps} timesteps")
    if mixes < 2:
        raise UsageError(f"--mixes {mixes}: must be at least 2, the reconstructions of both images")
    if out.suffix != ".png":
        raise UsageError(f"--out {out}: must end in .png")
    files.check_writable(out)
    denoiser = model.denoiser
    x_0 = images.to_float(pair, denoiser.value_range).to(denoiser.process.device)
    rows = []
    for time in tqdm(times, desc="interpolate", unit="row"):
        mixed = images.to_uint8(interpolate(denoiser, x_0, time, mixes, chosen), denoiser.value_range)
        rows.append((f"$t={time}$", torch.cat([pair[:1], mixed.cpu(), pair[1:]])))
    shares = [rf"$\lambda={share:.2g}$" for share in torch.linspace(0, 1, mixes).tolist()]
    figures.strip(out, "From one image to another, mixed at time t", ["image", *shares, "image"], rows)


def _chosen(file: Path, image_shape: tuple[int, int, int], pair: tuple[int, int]) -> Tensor:
    found = files.read_tensors(file).tensors.get("images")
    if found is None or tuple(found.shape[1:]) != image_shape:
        raise UsageError(f"--images {file}: holds no images of the model's shape {image_shape}")
    for place in pair:
        if not 0 <= place < len(found):
            raise UsageError(f"--pair {pair[0]} {pair[1]}: {file} holds the images 0 to {len(found) - 1}")
    return found[list(pair)]


def _fitted(file: Path, image_shape: tuple[int, int, int]) -> Tensor:
    """An image file, uint8 (C, H, W)."""
    channels, size, _ = image_shape
    settings = Data(
        source="folder",
        path=None,
        digest=None,
        image_size=size,
        channels=1 if channels == 1 else 3,
        fit="crop",
        seed=None,
    )
    alone = Files(file.parent, None, {}, (ImageFile(PurePosixPath(file.name), None, ""),))
    return torch.from_numpy(fit(alone[0], settings).copy())
