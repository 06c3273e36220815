"""The files of samples from a model and from the snapshots of its training."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddpm import files

FORMAT = "ddpm-samples-1"
SNAPSHOTS_FORMAT = "ddpm-snapshot-samples-1"


@dataclass(frozen=True)
class Samples:
    """Samples of one model."""

    images: Tensor  # uint8 (N, C, H, W)
    labels: Tensor | None  # int64 (N,), the class of each image under guidance
    settings: Mapping[str, Any]  # section `sample` of params.yaml
    model_digest: str  # sha256 of the model's weights


def write(path: Path, samples: Samples) -> None:
    """Write samples to a file."""
    tensors = {"images": samples.images} | ({} if samples.labels is None else {"labels": samples.labels})
    metadata = {"format": FORMAT, "sample": dict(samples.settings), "model_digest": samples.model_digest}
    files.write_tensors(path, tensors, metadata)


def read(path: Path) -> tuple[Samples, str]:
    """Read samples and the sha256 of their tensors. Raises `TensorFileError` for another file."""
    file = files.read_tensors(path, FORMAT)
    tensors, metadata = file.tensors, file.metadata
    return Samples(tensors["images"], tensors.get("labels"), metadata["sample"], metadata["model_digest"]), file.digest


def write_snapshots(path: Path, images: Mapping[int, Tensor]) -> None:
    """Write the samples of each snapshot, uint8 (N, C, H, W), by its step."""
    tensors = {f"{step:08d}": samples for step, samples in images.items()}
    files.write_tensors(path, tensors, {"format": SNAPSHOTS_FORMAT})


def read_snapshots(path: Path) -> dict[int, Tensor]:
    """Read the samples of each snapshot by its step, in rising order. Raises as `read` does."""
    file = files.read_tensors(path, SNAPSHOTS_FORMAT)
    return {int(step): samples for step, samples in sorted(file.tensors.items())}
