"""The training images nearest to samples in pixel space, to detect copies."""

from collections.abc import Callable

import torch
from torch import Tensor

from ddpm import mapped

_BLOCK = 2**26  # bytes of images, as float32, that are compared at a time
_MOST = 4096  # images in a block


def nearest(
    samples: Tensor, train: Tensor, device: torch.device, progress: Callable[[int], object] | None = None
) -> tuple[Tensor, Tensor]:
    """For each sample the index of the nearest training image, int64 (N,), and its distance, float32 (N,), on the host.

    Both are uint8 (., C, H, W); the distance is the root mean square over pixels, in [0, 255]. The work runs on
    `device`, block by block. `progress(n)` is called after each block of n training images.
    """
    rows = max(1, min(_MOST, _BLOCK // (4 * samples[:1].numel())))
    best = torch.full((len(samples),), torch.inf, device=device)
    index = torch.zeros(len(samples), dtype=torch.int64, device=device)
    first = 0
    for block in mapped.blocks(train, rows):
        images = _flat(block, device)
        norms = images.square().sum(1)
        for part in torch.arange(len(samples), device=device).split(rows):
            # |x|^2 - 2 x y: the square of the distance to the sample y, without |y|^2, which changes no order
            score, at = torch.addmm(norms, _flat(samples[part.cpu()], device), images.T, alpha=-2).min(dim=1)
            closer = score < best[part]
            best[part] = torch.where(closer, score, best[part])
            index[part] = torch.where(closer, first + at, index[part])
        first += len(block)
        if progress is not None:
            progress(len(block))
    # The expanded square is not exact; a copy must have the distance zero.
    found = index.cpu()
    exact = [
        (_flat(part, device) - _flat(mapped.gather(train, chosen.numpy()), device)).square().mean(1).sqrt().cpu()
        for part, chosen in zip(samples.split(rows), found.split(rows), strict=True)
    ]
    return found, torch.cat(exact)


def _flat(images: Tensor, device: torch.device) -> Tensor:
    """uint8 (N, C, H, W) to float32 (N, C H W)."""
    return images.to(device).flatten(1).float()
