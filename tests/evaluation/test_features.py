"""The features of real images, and their file."""

from pathlib import Path

import pytest
import torch

from ddpm import files
from ddpm.evaluation import features
from ddpm.evaluation.features import Features, Reference


def some(count: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return Features(torch.randn(count, 6, generator=generator), torch.randn(count, 3, generator=generator))


def test_reference_that_is_read_is_the_one_that_was_written(tmp_path: Path) -> None:
    written = Reference(some(7, 0), some(4, 1), "classifier", "e" * 64, "a" * 64, "b" * 64, {"name": "digits"})
    features.write(tmp_path / "reference.safetensors", written)
    found = features.read(tmp_path / "reference.safetensors")
    for one, other in ((found.train, written.train), (found.test, written.test)):
        assert one.features.equal(other.features)
        assert one.logits.equal(other.logits)
    assert (found.extractor, found.extractor_digest, found.source) == ("classifier", "e" * 64, {"name": "digits"})
    assert (found.train_digest, found.test_digest) == ("a" * 64, "b" * 64)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    files.write_tensors(tmp_path / "x.safetensors", {"images": torch.zeros(2)}, {"format": "ddpm-samples-1"})
    with pytest.raises(files.TensorFileError, match="has the format ddpm-samples-1: expected ddpm-reference-1"):
        features.read(tmp_path / "x.safetensors")


def test_a_subset_is_random_by_the_seed_and_keeps_features_and_logits_together() -> None:
    whole = Features(torch.arange(50).float()[:, None], -torch.arange(50).float()[:, None])
    one, again, other = (whole.subset(20, seed) for seed in (0, 0, 1))
    assert one.features.equal(again.features)
    assert not one.features.equal(other.features)
    assert one.features.equal(-one.logits)
    assert len(one.features.unique()) == 20
    assert whole.subset(50, 0) is whole
