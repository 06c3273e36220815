"""Packing of raw images into the file of a split, which is written completely or not at all."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ddpm.data import dataset
from ddpm.data.fit import fit
from ddpm.data.sources import Split
from ddpm.errors import UsageError
from ddpm.params import Data

_LISTED = 20  # the most images that an error names


def pack(split: Split, settings: Data, path: Path, progress: Callable[[int], object] | None = None) -> None:
    """Write the split's images, fitted to `settings`, to `path`.

    `progress(1)` is called after each image. Raises `UsageError` that names every bad image, up to 20, and then leaves
    no file behind.
    """
    bad: list[str] = []
    shape = (settings.channels, settings.image_size, settings.image_size)
    blank = np.zeros(shape, np.uint8)

    def fitted() -> Iterator[np.ndarray]:
        for index in range(len(split)):
            try:
                yield fit(split.picture(index), settings)
            except UsageError as error:
                bad.append(str(error))
                yield blank
            if progress is not None:
                progress(1)
        if bad:
            raise unusable(bad)

    dataset.write(path, fitted(), split.labels, split.classes, shape, split.source)


def unusable(errors: Sequence[str]) -> UsageError:
    """The error that names the bad images, up to 20, by the error of each."""
    more = f"\n  and {len(errors) - _LISTED} more" if len(errors) > _LISTED else ""
    count = f"{len(errors)} image{'s' * (len(errors) != 1)}"
    return UsageError(f"{count} cannot be used:\n  " + "\n  ".join(errors[:_LISTED]) + more)
