"""The files of samples."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm import files
from ddpm.files import TensorFileError
from ddpm.params import Sample
from ddpm.sampling import samples
from ddpm.sampling.samples import Samples


def images(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 4, 8), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("labels", [None, torch.tensor([2, 0, 1])])
def test_samples_are_read_as_they_were_written(tmp_path: Path, sample_settings: Sample, labels: Tensor | None) -> None:
    written = Samples(images(3), labels, sample_settings.model_dump(), "0" * 64)
    samples.write(tmp_path / "samples.safetensors", written)
    read, digest = samples.read(tmp_path / "samples.safetensors")
    assert read.images.equal(written.images)
    assert (read.labels is None) if labels is None else read.labels is not None and read.labels.equal(labels)
    assert (read.settings, read.model_digest) == (written.settings, written.model_digest)
    assert digest == files.read_metadata(tmp_path / "samples.safetensors")["digest"]


def test_the_digest_is_that_of_the_tensors(tmp_path: Path, sample_settings: Sample) -> None:
    digests = []
    for seed, model in ((0, "a"), (0, "b"), (1, "a")):
        samples.write(tmp_path / "file", Samples(images(2, seed), None, sample_settings.model_dump(), model))
        digests.append(samples.read(tmp_path / "file")[1])
    assert digests[0] == digests[1] != digests[2]


def test_snapshots_are_read_by_their_step_in_rising_order(tmp_path: Path) -> None:
    written = {200: images(2, 1), 30: images(2, 2), 1000: images(2, 3)}
    samples.write_snapshots(tmp_path / "snapshots.safetensors", written)
    read = samples.read_snapshots(tmp_path / "snapshots.safetensors")
    assert list(read) == [30, 200, 1000]
    assert all(read[step].equal(written[step]) for step in written)


def test_no_snapshots_are_a_file_without_images(tmp_path: Path) -> None:
    samples.write_snapshots(tmp_path / "snapshots.safetensors", {})
    assert samples.read_snapshots(tmp_path / "snapshots.safetensors") == {}


def test_a_file_of_another_format_is_refused(tmp_path: Path, sample_settings: Sample) -> None:
    samples.write(tmp_path / "samples", Samples(images(1), None, sample_settings.model_dump(), ""))
    samples.write_snapshots(tmp_path / "snapshots", {1: images(1)})
    with pytest.raises(
        TensorFileError, match=r"samples has the format ddpm-samples-1 \(samples\): expected ddpm-snapshot-samples-1"
    ):
        samples.read_snapshots(tmp_path / "samples")
    with pytest.raises(TensorFileError, match="expected ddpm-samples-1"):
        samples.read(tmp_path / "snapshots")
