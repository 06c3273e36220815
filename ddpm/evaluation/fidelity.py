"""FID, KID, Inception Score, precision and recall of samples, computed by torch-fidelity.

FID and the Inception Score depend on the number of images. Each is therefore reported beside the same metric of real
images, from as many images and as many splits.
"""

from dataclasses import dataclass

import numpy as np

from ddpm import mapped
from ddpm.evaluation.features import Features

IS_SPLITS = 10
KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
NEIGHBOURHOOD = 3  # k of precision and recall (Kynkäänniemi et al. 2019)

_PAIRS = 25_000_000  # distances of precision and recall at a time, of about 20 bytes each
_LARGEST_BATCH = 10_000  # torch-fidelity's batch of precision and recall
_SHUFFLE = 2020  # torch-fidelity's seed of the order in which the Inception Score splits the images


@dataclass(frozen=True)
class Fidelity:
    """Metrics of samples and of real images, and the protocol of their measurement."""

    metrics: dict[str, float]
    protocol: dict[str, int]
    warnings: list[str]


def measure(samples: Features, train: Features, test: Features, seed: int) -> Fidelity:
    """Compare samples with training images; test images give the floor, the value for perfect samples.

    `fid_floor` is the FID of the test images, at most one per sample, to the training images. `fid_matched` is the FID
    of the same number of samples. `is_real` is the Inception Score of one training image per sample. The subsets of
    KID are as large as both sides allow. A metric that is not defined for so few images is left out.
    """
    matched = min(len(samples), len(test))
    kid_size = min(KID_SUBSET_SIZE, len(samples), len(train))
    score = inception_score(samples)
    real = train.subset(len(samples), seed)
    compared = {
        "fid": samples,
        "fid_matched": samples.subset(matched, seed),
        "fid_floor": test.subset(matched, seed),
    }
    metrics = {
        **{name: fid(images, train) for name, images in compared.items() if min(len(images), len(train)) > 1},
        "is": score[0],
        "is_std": score[1],
        "is_real": inception_score(real)[0],
        **({"kid": _kid(samples, train, kid_size, seed)} if kid_size > 1 else {}),
        **_precision_recall(samples, real),
    }
    protocol = {
        "samples": len(samples),
        "real_train": len(train),
        "matched": matched,
        "is_splits": min(IS_SPLITS, len(samples)),
        "is_real_images": len(real),
        "kid_subset_size": kid_size,
        "kid_subsets": KID_SUBSETS,
        "precision_recall_images": len(real),
        "features": samples.features.shape[1],
    }
    return Fidelity(metrics, protocol, _warnings(protocol))


def fid(first: Features, second: Features) -> float:
    """The Fréchet distance between Gaussians fitted to two sets of features (Heusel et al. 2017)."""
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    fitted = ({"mu": mean, "sigma": covariance} for mean, covariance in (first.moments, second.moments))
    return float(fid_statistics_to_metric(*fitted, verbose=False)["frechet_inception_distance"])


def inception_score(of: Features) -> tuple[float, float]:
    """Mean and standard deviation over splits of exp E KL(p(y|x) || p(y)) (Salimans et al. 2016)."""
    from torch_fidelity.metric_isc import isc_features_to_metric

    count, splits = len(of), min(IS_SPLITS, len(of))
    order = np.random.RandomState(_SHUFFLE).permutation(count)  # torch-fidelity's order
    scores = []
    for split in range(splits):  # one at a time: torch-fidelity needs five float64 arrays of the size of its logits
        logits = mapped.gather(of.logits, order[split * count // splits : (split + 1) * count // splits])
        scores.append(isc_features_to_metric(logits, splits=1, shuffle=False)["inception_score_mean"])
    return float(np.mean(scores)), float(np.std(scores))


def _kid(first: Features, second: Features, subset_size: int, seed: int) -> float:
    """The unbiased squared maximum mean discrepancy under a cubic kernel (Bińkowski et al. 2018)."""
    from torch_fidelity.metric_kid import kernel_mmd

    draw = np.random.RandomState(seed % 2**32)  # torch-fidelity's subsets

    def subset(of: Features) -> np.ndarray:
        return mapped.gather(of.features, draw.choice(len(of), subset_size, replace=False)).numpy()

    return float(np.mean([kernel_mmd(subset(first), subset(second)) for _ in range(KID_SUBSETS)]))


def _precision_recall(samples: Features, real: Features) -> dict[str, float]:
    from torch_fidelity.metric_prc import prc_features_to_metric

    if min(len(samples), len(real)) <= NEIGHBOURHOOD:
        return {}
    result = prc_features_to_metric(
        samples.features,
        real.features,
        prc_neighborhood=NEIGHBOURHOOD,
        prc_batch_size=max(1, min(_LARGEST_BATCH, _PAIRS // max(len(samples), len(real)))),
        save_cpu_ram=True,
        verbose=False,
    )
    return {"precision": float(result["precision"]), "recall": float(result["recall"])}


def _warnings(protocol: dict[str, int]) -> list[str]:
    features, real = protocol["features"], protocol["is_real_images"]
    too_few = [
        f"{names} computed from {_counted(count, noun)}, not more than the {features} features: "
        f"the covariance is rank-deficient, and the result is unreliable"
        if count > 1
        else f"{names} left out: {_counted(count, noun)} has no covariance"
        for names, count, noun in (
            ("fid is", protocol["samples"], "sample"),
            ("fid is", protocol["real_train"], "training image"),
            ("fid_matched and fid_floor are", protocol["matched"], "image"),
        )
        if count <= features
    ]
    few_real = f"is_real is computed from {_counted(real, 'training image')}, fewer than the samples"
    return [*too_few, few_real] if real < protocol["samples"] else too_few


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
