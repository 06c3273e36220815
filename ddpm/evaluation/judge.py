"""Everything that stage evaluate measures: samples and model, compared with real images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm import figures, images
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import Sigma
from ddpm.evaluation import classes, extractor, features, likelihood, neighbours, reliability
from ddpm.evaluation.extractor import Extractor
from ddpm.evaluation.features import Features, Reference
from ddpm.evaluation.fidelity import Fidelity, measure
from ddpm.params import Data
from ddpm.sampling.samples import Samples
from ddpm.tables import Share

COMPARED = 1000  # samples and test images whose neighbours are searched: enough to detect copies, and fast

_NOT_PINNED = "the images are not pinned: set data.digest to {} to notice when they change"


@dataclass(frozen=True)
class Judge:
    """An extractor and the features of the real images."""

    extract: Extractor
    reference: Reference
    seed: int
    device: torch.device

    @classmethod
    def load(cls, extractor_file: Path, reference: Path, seed: int, device: torch.device) -> "Judge":
        """Load the files that stage reference wrote. Raises `TensorFileError`."""
        return cls(extractor.load(extractor_file, device), features.read(reference), seed, device)

    def measure(self, shown: Tensor, progress: Callable[[int], object] | None = None) -> tuple[Features, Fidelity]:
        """The features of images, uint8 (N, C, H, W), and their fidelity to the real images."""
        found = self.extract(shown, self.device, progress)
        return found, self.compare(found)

    def compare(self, found: Features) -> Fidelity:
        """The fidelity of images, by their features, to the real images.

        If the extractor is useless, the warnings begin with the reasons, and the metrics have `useless`, which is 1.
        """
        real = self.reference.train
        fidelity = measure(found, real, self.reference.test, self.seed)
        flaws = reliability.inaccuracy(self.extract.accuracy, real.logits.shape[1]) + reliability.collapse(real)
        if not flaws:
            return fidelity
        metrics, warnings = {"useless": 1.0} | fidelity.metrics, flaws + fidelity.warnings
        return replace(fidelity, metrics=metrics, warnings=warnings)

    def class_metrics(self, samples: Features, labels: Tensor | None) -> dict[str, float]:
        """The classifier's accuracy and the classes of the samples; empty for Inception, whose classes differ."""
        if self.extract.accuracy is None:
            return {}
        return {"accuracy": self.extract.accuracy} | classes.agreement(samples, self.reference.train, labels)

    def class_shares(self, samples: Features, labels: Tensor | None, names: Sequence[str]) -> list[Share]:
        """Each class in training images and in samples, with its agreement if there are labels; empty for Inception."""
        if self.extract.accuracy is None:
            return []
        both = (classes.shares(found).tolist() for found in (self.reference.train, samples))
        agreements = [None] * len(names) if labels is None else classes.agreement_by_class(samples, labels)
        return [Share(*row) for row in zip(names, *both, agreements, strict=True)]

    def snapshot_curve(self, snapshots: Mapping[int, Features]) -> list[dict[str, float]]:
        """FID and Inception Score of the samples of each snapshot, by step, if FID is defined."""
        measured = {step: self.compare(found).metrics for step, found in snapshots.items()}
        return [{"step": step, "fid": m["fid"], "is": m["is"]} for step, m in measured.items() if "fid" in m]


def best_snapshot(points: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """The snapshot with the smallest FID, as metrics."""
    if not points:
        return {}
    best = min(points, key=lambda point: point["fid"])
    return {"snapshots": {"best_fid": best["fid"], "best_step": best["step"]}}


def bound_likelihood(
    denoiser: Denoiser, test: Tensor, seed: int, sigma: Sigma, progress: Callable[[int], object] | None = None
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Bits per dimension of test images, uint8 (N, C, H, W), as metrics, and the terms of the bound over time."""
    x_0 = images.to_float(test, denoiser.value_range)
    bound = likelihood.measure(denoiser, x_0, seed, sigma, progress=progress)
    summary = {name: getattr(bound, name) for name in ("bits_per_dim", "rate", "distortion", "prior")}
    points = [
        {"t": t, "bits_per_dim": term, "x_0_error": error}
        for t, (term, error) in enumerate(zip(bound.terms.tolist(), bound.x_0_error.tolist(), strict=True), 1)
    ]
    return summary, points


def look_for_copies(
    samples: Tensor,
    train: Tensor,
    test: Tensor,
    shown: int,
    picture: Path,
    device: torch.device,
    progress: Callable[[int], object] | None = None,
) -> dict[str, float]:
    """Distances from samples to their nearest training images, and from test images, which are no copies.

    All images are uint8 (., C, H, W). The `shown` samples with the smallest distances go into the picture.
    `progress(n)` is called after the comparison with n training images.
    """
    samples, test = samples[:COMPARED], test[:COMPARED]
    both = neighbours.nearest(torch.cat([samples, test]), train, device, progress)  # the training images are read once
    (indices, _), (distances, of_test) = (found.split([len(samples), len(test)]) for found in both)
    closest = distances.argsort(stable=True)[:shown]
    figures.strip(
        picture,
        "The samples nearest to a training image",
        [f"{distances[index]:.1f}" for index in closest],
        [("sample", samples[closest]), ("training\nimage", train[indices[closest]])],
    )
    return {
        "smallest": float(distances.min()),
        "median": float(distances.median()),
        "median_of_test": float(of_test.median()),
    }


def protocol(
    data: Data, fidelity: Fidelity, samples: Samples, samples_digest: str, reference: Reference
) -> dict[str, Any]:
    """Everything that the metrics depend on, so that others can compare theirs."""
    unpinned = data.source == "folder" and data.digest is None  # the other sources are fixed datasets
    return {
        **fidelity.protocol,
        "warnings": fidelity.warnings + ([_NOT_PINNED.format(reference.source["files_sha256"])] if unpinned else []),
        "extractor": reference.extractor,
        "extractor_digest": reference.extractor_digest,
        "data": reference.source["name"],
        "data_pinned": not unpinned,
        "train_digest": reference.train_digest,
        "test_digest": reference.test_digest,
        "model_digest": samples.model_digest,
        "samples_digest": samples_digest,
        "sample": dict(samples.settings),
        "images": "uint8, from the packed files",
        "neighbours_images": min(COMPARED, len(samples.images)),
    }
