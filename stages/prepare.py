"""Stage prepare: raw images to data/train.safetensors and data/test.safetensors."""

from stages import pipeline  # first: it notes the code before it is imported

# isort: split

from functools import partial
from pathlib import Path

from tqdm import tqdm

from ddpm.data import sources
from ddpm.data.pack import pack
from ddpm.errors import UsageError
from ddpm.params import Params, load


def prepare(params: Params, train: Path, test: Path) -> None:
    """Pack each split of the source into one file, fitted to the image size."""
    splits = sources.load(params.data, pipeline.data_root(params.runtime.data_root))
    try:
        for split, path in zip(splits, (train, test), strict=True):
            pack(split, params.data, path, partial(tqdm, desc=f"prepare {path.stem}", unit="img", mininterval=1))
    except UsageError:
        for path in (train, test):  # one split without the other is of no use
            path.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    with pipeline.running("prepare"):
        prepare(load(pipeline.PARAMS), *pipeline.paths("train", "test"))
