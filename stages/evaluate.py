"""Stage evaluate: samples against real images, to reports/metrics.json and reports/neighbours.png."""

from stages import pipeline  # first: it notes the code before it is imported

# isort: split

import json
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
from ddpm.evaluation.fidelity import Features, Fidelity, measure
from ddpm.network import modelfile
from ddpm.params import Params, load
from ddpm.reporting import curve, figures

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
) -> None:
    """Measure the samples under the reference's extractor, look for copies of training images, and bound likelihood."""
    where = device.prepare(params.runtime)
    settings = params.evaluate
    drawn, real = tensorfile.read(samples), tensorfile.read(reference)
    known = {split: dataset.read(path) for split, path in (("train", train), ("test", test))}
    extract = extractor.load(network, where)
    of_real = {
        split: Features(real.tensors[f"{split}/features"], real.tensors[f"{split}/logits"])
        for split in ("train", "test")
    }

    def compare(shown: Tensor, what: str) -> tuple[Features, Fidelity]:
        progress = partial(tqdm, desc=f"evaluate {what}", unit="batch", mininterval=1)
        features = Features(*extract(shown, where, progress))
        return features, measure(features, of_real["train"], of_real["test"], settings.seed)

    features, fidelity = compare(drawn.tensors["images"], "samples")
    result: dict[str, Any] = {
        extract.kind: fidelity.metrics,
        "neighbours": look_for_copies(
            drawn.tensors["images"], known["train"].images, known["test"].images, params, pictures
        ),
        "protocol": protocol(params, fidelity, drawn, real),
    }
    if extract.accuracy is not None:
        asked = drawn.tensors.get("labels")
        result[extract.kind] |= {"accuracy": extract.accuracy} | classes.agreement(features, of_real["train"], asked)
    if settings.likelihood_images:
        sigma: Sigma = drawn.metadata["sample"]["sigma"] or "large"
        result["likelihood"] = bound_likelihood(model, known["test"], params, sigma, where, likelihood_curve)
        result["protocol"]["likelihood_sigma"] = sigma
    else:
        curve.write(likelihood_curve, [], LIKELIHOOD)
    over_training = [
        {"step": int(step)} | {key: compare(shown, step)[1].metrics[key] for key in SNAPSHOTS[1:]}
        for step, shown in sorted(tensorfile.read(of_snapshots).tensors.items())
    ]
    curve.write(snapshot_curve, over_training, SNAPSHOTS)
    if over_training:
        best = min(over_training, key=lambda point: point["fid"])
        result["snapshots"] = {"best_fid": best["fid"], "best_step": best["step"]}
    atomic.write_text(metrics, json.dumps(result, indent=2, sort_keys=True) + "\n")


def bound_likelihood(
    model: Path, test: Dataset, params: Params, sigma: Sigma, where: torch.device, path: Path
) -> dict[str, float]:
    """Bits per dimension of test images, and the bound's terms over time as a curve."""
    loaded = modelfile.load(model, where)
    denoiser = loaded.denoiser
    x_0 = images.to_float(test.images[: params.evaluate.likelihood_images], denoiser.value_range)
    evaluations = len(x_0) * denoiser.process.timesteps
    with tqdm(total=evaluations, desc="evaluate likelihood", unit="img", mininterval=1) as bar:
        bound = likelihood.measure(denoiser, x_0, params.evaluate.seed, sigma, progress=bar.update)
    points = [
        {"t": place + 1, "bits_per_dim": term, "x_0_error": error}
        for place, (term, error) in enumerate(zip(bound.terms.tolist(), bound.x_0_error.tolist(), strict=True))
    ]
    curve.write(path, points, LIKELIHOOD)
    return {
        "bits_per_dim": bound.bits_per_dim,
        "rate": bound.rate,
        "distortion": bound.distortion,
        "prior": bound.prior,
        "images": len(x_0),
    }


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
        outputs = ("metrics", "neighbours", "likelihood", "snapshots")
        evaluate(load(pipeline.PARAMS), *pipeline.paths(*inputs, *outputs))
