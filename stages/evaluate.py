"""Stage evaluate: samples and the model against real images, to reports/metrics.json, curves and a picture."""

from stages import pipeline  # first: it notes the code before it is imported

# isort: split

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm import atomic, device, images, tensorfile
from ddpm.data import dataset
from ddpm.data.dataset import Dataset
from ddpm.diffusion.process import Sigma
from ddpm.evaluation import classes, extractor, likelihood, neighbours
from ddpm.evaluation.extractor import Extractor
from ddpm.evaluation.fidelity import Features, Fidelity, measure
from ddpm.network import modelfile
from ddpm.params import Params, load
from ddpm.reporting import curve, figures, shares
from ddpm.reporting.shares import Share

_NOT_PINNED = "the images are not pinned: set data.digest to {} to notice when they change"
LIKELIHOOD = ("t", "bits_per_dim", "x_0_error")  # columns
SNAPSHOTS = ("step", "fid", "is")
LOOKED_AT = 1000  # of the samples and of the test images: enough to see copying, and the search stays short


def evaluate(
    params: Params,
    model: Path,
    samples: Path,
    of_snapshots: Path,
    train: Path,
    test: Path,
    network: Path,
    reference: Path,
    metrics: Path,
    pictures: Path,
    likelihood_curve: Path,
    snapshot_curve: Path,
    class_shares: Path,
) -> None:
    """Measure the samples under the reference's extractor, look for copies of training images, and bound likelihood."""
    where = device.prepare(params.runtime)
    drawn, real = tensorfile.read(samples), tensorfile.read(reference)
    shown, asked = drawn.tensors["images"], drawn.tensors.get("labels")
    of_train, of_test = dataset.read(train), dataset.read(test)
    judge = Judge.read(network, real, params.evaluate.seed, where)
    features, fidelity = judge.compare(shown, "samples")
    sigma: Sigma = drawn.metadata["sample"]["sigma"] or "large"
    bound, terms = bound_likelihood(model, of_test, sigma, params, where)
    points = follow(judge, tensorfile.read(of_snapshots).tensors)
    result = {
        judge.extract.kind: fidelity.metrics | judge.classes(features, asked),
        "neighbours": look_for_copies(shown, of_train.images, of_test.images, params, pictures),
        "protocol": protocol(params, fidelity, drawn, real) | ({"likelihood_sigma": sigma} if bound else {}),
        **bound,
        **best(points),
    }
    curve.write(likelihood_curve, terms, LIKELIHOOD)
    curve.write(snapshot_curve, points, SNAPSHOTS)
    shares.write(class_shares, judge.shares(features, of_train.classes))
    atomic.write_text(metrics, json.dumps(result, indent=2, sort_keys=True) + "\n")


@dataclass(frozen=True)
class Judge:
    """The extractor, and what it makes of the real images."""

    extract: Extractor
    train: Features
    test: Features
    seed: int
    where: torch.device

    @classmethod
    def read(cls, network: Path, real: tensorfile.TensorFile, seed: int, where: torch.device) -> "Judge":
        """From what stage reference has written."""
        train, test = (
            Features(real.tensors[f"{split}/features"], real.tensors[f"{split}/logits"]) for split in ("train", "test")
        )
        return cls(extractor.load(network, where), train, test, seed, where)

    def compare(self, shown: Tensor, what: str) -> tuple[Features, Fidelity]:
        """The features of images, uint8 (N, C, H, W), and how they compare with those of real ones."""
        progress = partial(tqdm, desc=f"evaluate {what}", unit="batch", mininterval=1)
        features = Features(*self.extract(shown, self.where, progress))
        return features, measure(features, self.train, self.test, self.seed)

    def classes(self, samples: Features, asked: Tensor | None) -> dict[str, float]:
        """What a classifier says of itself, and of the samples' classes; nothing of Inception, whose are others."""
        if self.extract.accuracy is None:
            return {}
        return {"accuracy": self.extract.accuracy} | classes.agreement(samples, self.train, asked)

    def shares(self, samples: Features, names: Sequence[str]) -> list[Share]:
        """How often a classifier sees each class in training images and in samples; of Inception nothing."""
        if self.extract.accuracy is None:
            return []
        both = (classes.shares(features).tolist() for features in (self.train, samples))
        return [Share(*row) for row in zip(names, *both, strict=True)]


def follow(judge: Judge, of_snapshots: Mapping[str, Tensor]) -> list[dict[str, float]]:
    """FID and Inception Score of the samples from each snapshot, whose names are their steps, if FID is defined."""
    points = []
    for step, shown in sorted(of_snapshots.items()):
        metrics = judge.compare(shown, f"snapshot {step}")[1].metrics
        if "fid" in metrics:
            points.append({"step": int(step), "fid": metrics["fid"], "is": metrics["is"]})
    return points


def best(points: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """The snapshot with the smallest FID, as metrics."""
    if not points:
        return {}
    point = min(points, key=lambda point: point["fid"])
    return {"snapshots": {"best_fid": point["fid"], "best_step": point["step"]}}


def bound_likelihood(
    model: Path, test: Dataset, sigma: Sigma, params: Params, where: torch.device
) -> tuple[dict[str, dict[str, float]], list[dict[str, float]]]:
    """Bits per dimension of test images as metrics, and the bound's terms over time; of no images nothing."""
    if not params.evaluate.likelihood_images:
        return {}, []
    denoiser = modelfile.load(model, where).denoiser
    x_0 = images.to_float(test.images[: params.evaluate.likelihood_images], denoiser.value_range)
    evaluations = len(x_0) * denoiser.process.timesteps
    with tqdm(total=evaluations, desc="evaluate likelihood", unit="img", mininterval=1) as bar:
        bound = likelihood.measure(denoiser, x_0, params.evaluate.seed, sigma, progress=bar.update)
    summary = {name: getattr(bound, name) for name in ("bits_per_dim", "rate", "distortion", "prior")}
    points = [
        {"t": t, "bits_per_dim": term, "x_0_error": error}
        for t, (term, error) in enumerate(zip(bound.terms.tolist(), bound.x_0_error.tolist(), strict=True), 1)
    ]
    return {"likelihood": {**summary, "images": len(x_0)}}, points


def look_for_copies(drawn: Tensor, train: Tensor, test: Tensor, params: Params, path: Path) -> dict[str, float]:
    """Picture the samples that come closest to a training image, and say how close samples and test images come."""
    drawn, test = drawn[:LOOKED_AT], test[:LOOKED_AT]
    places, distances = neighbours.nearest(drawn, train)
    closest = distances.argsort(stable=True)[: params.evaluate.neighbours]
    figures.strip(
        path,
        "The samples nearest to a training image",
        [f"{distances[place]:.1f}" for place in closest],
        [("sample", drawn[closest]), ("training\nimage", train[places[closest]])],
    )
    return {
        "smallest": float(distances.min()),
        "median": float(distances.median()),
        "median_of_test": neighbours.typical_distance(test, train),
    }


def protocol(
    params: Params, fidelity: Fidelity, drawn: tensorfile.TensorFile, real: tensorfile.TensorFile
) -> dict[str, Any]:
    """All that the numbers depend on, for whoever wants to compare them."""
    metadata = real.metadata
    source = metadata["source"]
    unpinned = params.data.source == "folder" and params.data.digest is None  # other sources are checked by their own
    return {
        **fidelity.protocol,
        "warnings": fidelity.warnings + ([_NOT_PINNED.format(source["files_sha256"])] if unpinned else []),
        "extractor": metadata["extractor"],
        "extractor_digest": metadata["extractor_digest"],
        "data": source["name"],
        "data_pinned": not unpinned,
        "train_digest": metadata["train_digest"],
        "test_digest": metadata["test_digest"],
        "model_digest": drawn.metadata["model_digest"],
        "samples_digest": drawn.digest,
        "sample": drawn.metadata["sample"],
        "images": "uint8, from the packed files",
        "neighbours_images": min(LOOKED_AT, len(drawn.tensors["images"])),
    }


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    with pipeline.running("evaluate"):
        inputs = ("model", "samples", "snapshot-samples", "train", "test", "network", "reference")
        outputs = ("metrics", "neighbours", "likelihood", "snapshots", "classes")
        evaluate(load(pipeline.PARAMS), *pipeline.paths(*inputs, *outputs))
