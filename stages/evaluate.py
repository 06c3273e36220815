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

from ddpm import atomic, device, tensorfile
from ddpm.data import dataset
from ddpm.evaluation import extractor, neighbours
from ddpm.evaluation.fidelity import Features, Fidelity, measure
from ddpm.params import Params, load
from ddpm.reporting import figures

_NOT_PINNED = "the images are not pinned: set data.digest to {} to notice when they change"
LOOKED_AT = 1000  # of the samples and of the test images: enough to see copying, and the search stays short


def evaluate(
    params: Params,
    samples: Path,
    train: Path,
    test: Path,
    network: Path,
    reference: Path,
    metrics: Path,
    pictures: Path,
) -> None:
    """Measure the samples under the reference's extractor, and look for copies of training images."""
    where = device.prepare(params.runtime)
    drawn, real = tensorfile.read(samples), tensorfile.read(reference)
    extract = extractor.load(network, where)
    progress = partial(tqdm, desc="evaluate", unit="batch", mininterval=1)
    features, logits = extract(drawn.tensors["images"], where, progress)
    of_real = {
        split: Features(real.tensors[f"{split}/features"], real.tensors[f"{split}/logits"])
        for split in ("train", "test")
    }
    fidelity = measure(Features(features, logits), of_real["train"], of_real["test"], params.evaluate.seed)
    accuracy = {} if extract.accuracy is None else {"accuracy": extract.accuracy}
    result: dict[str, Any] = {
        extract.kind: fidelity.metrics | accuracy,
        "neighbours": look_for_copies(
            drawn.tensors["images"], dataset.read(train).images, dataset.read(test).images, params, pictures
        ),
        "protocol": protocol(params, fidelity, drawn, real),
    }
    atomic.write_text(metrics, json.dumps(result, indent=2, sort_keys=True) + "\n")


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
        names = ("samples", "train", "test", "network", "reference", "metrics", "neighbours")
        evaluate(load(pipeline.PARAMS), *pipeline.paths(*names))
