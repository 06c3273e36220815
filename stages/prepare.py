"""Stage prepare: pack raw images into data/train.safetensors and data/test.safetensors."""

import sys
from pathlib import Path

from ddpm.data import sources
from ddpm.data.pack import pack
from ddpm.errors import UsageError
from ddpm.params import Params
from lab import capacity, stage
from lab.experiment import dvcfile


def prepare(params: Params, train: Path, test: Path) -> None:
    """Pack each split of the source into one file, fitted to the image size."""
    if params.data.source == "folder" and params.data.digest is None:
        print(
            "prepare: data.digest is null, so `dvc repro` ignores changed images; `ddpm data` sets it", file=sys.stderr
        )
    splits = sources.load(params.data, dvcfile.data_root(params.runtime.data_root))
    if params.data.source == "folder":  # the number of its images is known only now
        pixels = sum(map(len, splits)) * params.data.channels * params.data.image_size**2
        capacity.check_disk(pixels, "data.image_size")
    try:
        for split, path in zip(splits, (train, test), strict=True):
            with stage.bar(f"prepare {path.stem}", len(split), "img") as bar:
                pack(split, params.data, path, bar.update)
    except UsageError:
        for path in (train, test):  # a single split cannot be used
            path.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    stage.run(prepare)
