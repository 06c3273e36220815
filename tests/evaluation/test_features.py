"""The features of real images, and their file."""

from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from ddpm import files, mapped
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
    with pytest.raises(files.TensorFileError, match=r"format ddpm-samples-1 \(samples\): expected ddpm-reference-1"):
        features.read(tmp_path / "x.safetensors")


def test_a_subset_is_random_by_the_seed_and_keeps_features_and_logits_together() -> None:
    whole = Features(torch.arange(50).float()[:, None], -torch.arange(50).float()[:, None])
    one, again, other = (whole.subset(20, seed) for seed in (0, 0, 1))
    assert one.features.equal(again.features)
    assert not one.features.equal(other.features)
    assert one.features.equal(-one.logits)
    assert len(one.features.unique()) == 20
    assert whole.subset(50, 0) is whole


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_moments_do_not_depend_on_the_blocks_and_are_those_of_numpy(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_BLOCK", rows * 6 * 8)
    found = some(40, 2)
    far = Features(found.features + 1000, found.logits)  # a single pass in float32, or without centring, is inexact
    mean, covariance = far.moments
    values = far.features.double().numpy()
    np.testing.assert_allclose(mean, values.mean(0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(values, rowvar=False), rtol=1e-10, atol=1e-10)
    assert far.moments is far.moments


def test_moments_of_features_in_a_file_take_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = Features(torch.zeros(1, 6).expand(2_000_000, 6), torch.zeros(1, 3).expand(2_000_000, 3))
    features.write(tmp_path / "reference.safetensors", Reference(zeros, some(4, 1), "classifier", "", "", "", {}))
    monkeypatch.setattr(mapped, "LARGE", 2**22)
    monkeypatch.setattr(mapped, "BLOCK", 2**20)
    monkeypatch.setattr(features, "_BLOCK", 2**20)
    found = features.read(tmp_path / "reference.safetensors").train
    process, most, usual = psutil.Process(), 0, torch.Tensor.addmm_

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        nonlocal most
        most = max(most, process.memory_info().rss)
        return usual(*arguments)

    assert some(40, 2).moments[1].shape == (6, 6)  # load the libraries
    monkeypatch.setattr(torch.Tensor, "addmm_", watched)
    before = process.memory_info().rss
    assert not found.moments[1].any()
    assert 0 < most - before < found.features.nbytes // 3  # the float64 copy alone would be twice the features
