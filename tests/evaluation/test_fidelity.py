"""Metrics against their closed forms; protocol and warnings."""

import math

import pytest
import torch
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from ddpm.evaluation import fidelity
from ddpm.evaluation.fidelity import Features, fid, inception_score, measure


def normal(count: int, seed: int, size: int = 4, classes: int = 3) -> Features:
    generator = torch.Generator().manual_seed(seed)
    return Features(torch.randn(count, size, generator=generator), torch.randn(count, classes, generator=generator))


def of_logits(logits: Tensor) -> Features:
    return Features(torch.zeros(len(logits), 1), logits)


def test_frechet_distance_of_equal_covariances_is_the_squared_gap_of_means() -> None:
    first = normal(50, 0)
    gap = torch.tensor([1.0, -2.0, 0.5, 0.0])
    second = Features(first.features + gap, first.logits)
    assert fid(first, second) == pytest.approx(float(gap.square().sum()), rel=1e-6)


def test_frechet_distance_of_scaled_features_is_the_squared_gap_of_deviations() -> None:
    first = normal(50, 1)
    centred = first.features - first.features.mean(0)
    scaled = Features(3 * centred, first.logits)
    total = float(centred.double().var(0).sum())  # (3 - 1)^2 tr C for commuting covariances
    assert fid(Features(centred, first.logits), scaled) == pytest.approx(4 * total, rel=1e-5)


def test_frechet_distance_to_itself_is_zero_and_the_distance_is_symmetric() -> None:
    first, second = normal(40, 2), normal(60, 3)
    assert fid(first, first) == pytest.approx(0, abs=1e-9)
    assert fid(first, second) == pytest.approx(fid(second, first), rel=1e-9)


@pytest.mark.parametrize("classes", [2, 5])
def test_inception_score_of_certain_balanced_predictions_is_the_number_of_classes(classes: int) -> None:
    certain = of_logits(100 * torch.eye(classes).repeat(2000, 1))
    score, deviation = inception_score(certain)
    assert score == pytest.approx(classes, rel=0.01)  # the shuffle balances the ten splits only approximately
    assert 0 < deviation < 0.05


def test_inception_score_of_constant_logits_is_one() -> None:
    assert inception_score(of_logits(torch.tensor([[2.0, -1.0, 0.3]]).repeat(40, 1))) == pytest.approx((1, 0), abs=1e-9)


def test_inception_score_is_the_exponential_of_the_mutual_information() -> None:
    """For two groups of images with p(y|x) = (q, 1 - q) and (1 - q, q), log IS = log 2 - H(q)."""
    q = 0.9
    logits = torch.tensor([[q, 1 - q], [1 - q, q]]).log().repeat(5000, 1)
    entropy = -(q * math.log(q) + (1 - q) * math.log(1 - q))
    assert inception_score(of_logits(logits))[0] == pytest.approx(2 / math.exp(entropy), rel=0.01)


def test_precision_and_recall_are_one_for_identical_sets_and_zero_for_distant_sets() -> None:
    real = normal(30, 4)
    far = Features(real.features + 1000, real.logits)
    same, apart = measure(real, real, real, 0).metrics, measure(far, real, real, 0).metrics
    assert (same["precision"], same["recall"]) == (1, 1)
    assert (apart["precision"], apart["recall"]) == (0, 0)


def test_precision_counts_samples_and_recall_counts_real_images() -> None:
    """Samples within one of two real clusters have high precision; they cover half of the real images."""
    near, far = normal(40, 5).features, normal(40, 6).features + 100
    train = Features(torch.cat([near, far]), torch.zeros(80, 3))
    samples = Features(near.repeat(2, 1) + 0.01 * normal(80, 7).features, torch.zeros(80, 3))
    metrics = measure(samples, train, train, 0).metrics
    assert metrics["precision"] > 0.9
    assert metrics["recall"] <= 0.5


def test_kernel_distance_grows_with_the_gap_of_means() -> None:
    train, samples = normal(200, 8), normal(200, 28)
    shifted = [Features(samples.features + gap, samples.logits) for gap in (0, 1)]
    values = [measure(images, train, train, 0).metrics["kid"] for images in shifted]
    assert abs(values[0]) < 0.3 < 3 < values[1]


def test_fid_matched_uses_one_sample_for_each_test_image() -> None:
    samples, train, test = normal(50, 9), normal(80, 10), normal(20, 11)
    result = measure(samples, train, test, seed=3)
    assert result.protocol["matched"] == 20
    assert result.metrics["fid"] == fid(samples, train)
    assert result.metrics["fid_matched"] == fid(samples.subset(20, 3), train) != result.metrics["fid"]
    assert result.metrics["fid_floor"] == fid(test, train)


def test_fid_floor_uses_no_more_test_images_than_samples() -> None:
    samples, train, test = normal(20, 9), normal(80, 10), normal(50, 11)
    result = measure(samples, train, test, seed=3)
    assert result.protocol["matched"] == 20
    assert result.metrics["fid_matched"] == result.metrics["fid"]
    assert result.metrics["fid_floor"] == fid(test.subset(20, 3), train) != fid(test, train)


def test_is_real_uses_one_training_image_for_each_sample() -> None:
    samples, train = normal(30, 12), normal(90, 13)
    result = measure(samples, train, train, seed=5)
    assert result.protocol["is_real_images"] == 30
    assert result.metrics["is_real"] == inception_score(train.subset(30, 5))[0] != inception_score(train)[0]
    assert (result.metrics["is"], result.metrics["is_std"]) == inception_score(samples)


def test_too_few_training_images_for_is_real_give_a_warning() -> None:
    result = measure(normal(40, 14), normal(25, 15), normal(40, 16), seed=0)
    assert result.protocol["is_real_images"] == 25
    assert result.warnings == ["is_real is computed from 25 training images, fewer than the samples"]


def test_fewer_images_than_features_give_a_warning_for_each_affected_metric() -> None:
    few, many = normal(6, 17, size=6), normal(30, 18, size=6)
    assert measure(many, many, many, 0).warnings == []
    [matched] = measure(many, many, few, 0).warnings
    assert matched.startswith("fid_matched and fid_floor are computed from 6 images, not more than the 6 features")
    [fid_warning, _] = measure(few, many, many, 0).warnings
    assert fid_warning.startswith("fid is computed from 6 samples")
    assert measure(many, few, many, 0).warnings[0].startswith("fid is computed from 6 training images")


@pytest.mark.parametrize(
    ("samples", "train", "test", "remaining"),
    [
        (1, 9, 9, {"is", "is_std", "is_real"}),
        (9, 1, 9, {"is", "is_std", "is_real"}),
        (9, 9, 1, {"fid", "kid", "is", "is_std", "is_real", "precision", "recall"}),
    ],
)
def test_metrics_that_need_two_images_are_left_out_for_one(
    samples: int, train: int, test: int, remaining: set[str]
) -> None:
    result = measure(normal(samples, 1), normal(train, 2), normal(test, 3), seed=0)
    assert set(result.metrics) == remaining
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert any("left out" in warning for warning in result.warnings)


def test_a_subset_depends_on_the_seed_and_repeats_no_image() -> None:
    whole = Features(torch.arange(50.0)[:, None], torch.arange(50.0)[:, None])
    first, again, other = whole.subset(20, 1), whole.subset(20, 1), whole.subset(20, 2)
    assert torch.equal(first.features, again.features)
    assert not torch.equal(first.features, other.features)
    assert len(first.features.unique()) == 20
    assert torch.equal(first.features, first.logits)
    assert whole.subset(50, 1) is whole


def test_metrics_depend_on_the_seed_and_large_seeds_are_valid() -> None:
    samples, train, test = normal(30, 19), normal(90, 20), normal(15, 21)
    first, again, other = (measure(samples, train, test, seed) for seed in (2**63 - 1, 2**63 - 1, 4))
    assert first == again
    assert {key for key in first.metrics if first.metrics[key] != other.metrics[key]} >= {"fid_matched", "is_real"}


def test_the_protocol_lists_the_counts_behind_the_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fidelity, "KID_SUBSET_SIZE", 25)
    assert measure(normal(30, 22), normal(90, 23), normal(12, 24), 0).protocol == {
        "samples": 30,
        "real_train": 90,
        "matched": 12,
        "is_splits": 10,
        "is_real_images": 30,
        "kid_subset_size": 25,
        "kid_subsets": 100,
        "precision_recall_images": 30,
        "features": 4,
    }


def test_fewer_than_ten_samples_give_one_split_each() -> None:
    assert measure(normal(7, 25), normal(90, 26), normal(12, 27), 0).protocol["is_splits"] == 7


def test_kernel_distance_is_that_of_torch_fidelity() -> None:
    samples, train = normal(60, 30), normal(90, 31)
    theirs = kid_features_to_metric(
        samples.features, train.features, kid_subsets=100, kid_subset_size=60, rng_seed=7, verbose=False
    )
    ours = measure(samples, train, train, 7).metrics["kid"]
    assert ours == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)


def test_inception_score_of_split_after_split_is_that_of_torch_fidelity() -> None:
    samples = normal(57, 32)
    theirs = isc_features_to_metric(samples.logits, splits=10)
    expected = theirs["inception_score_mean"], theirs["inception_score_std"]
    assert inception_score(samples) == pytest.approx(expected, rel=1e-12)


def test_precision_and_recall_do_not_depend_on_the_number_of_distances_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    samples, train = normal(40, 33), normal(90, 34)
    whole = measure(samples, train, train, 0).metrics
    batches = []

    def watched(*features: Tensor, prc_batch_size: int, **options: object) -> dict[str, float]:
        batches.append(prc_batch_size)
        result: dict[str, float] = prc_features_to_metric(*features, prc_batch_size=prc_batch_size, **options)
        return result

    monkeypatch.setattr("torch_fidelity.metric_prc.prc_features_to_metric", watched)
    monkeypatch.setattr(fidelity, "_PAIRS", 300)
    parts = measure(samples, train, train, 0).metrics
    assert batches == [7]  # 300 pairs of one image and 40
    assert [parts[name] for name in ("precision", "recall")] == [whole[name] for name in ("precision", "recall")]
