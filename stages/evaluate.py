"""Stage evaluate: compare samples and model with real images; write metrics, their protocol, curves and a picture."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm import files, processes, tables
from ddpm.data import dataset
from ddpm.data.dataset import Dataset
from ddpm.diffusion.process import Sigma
from ddpm.errors import FileError
from ddpm.evaluation import judge as judging
from ddpm.evaluation import losses
from ddpm.evaluation.features import Features
from ddpm.evaluation.judge import Judge
from ddpm.network import modelfile
from ddpm.network.modelfile import Model
from ddpm.params import Params
from ddpm.sampling import samples as sample_files
from ddpm.sampling.samples import Samples
from lab import kept, stage

LIKELIHOOD = ("t", "bits_per_dim", "x_0_error")  # columns
SNAPSHOTS = ("step", "fid", "is")


@torch.no_grad()
def evaluate(
    params: Params,
    model: Path,
    samples: Path,
    snapshot_samples: Path,
    data: Path,
    extractor: Path,
    reference: Path,
    protocol: Path,
    reports: Path,
) -> None:
    """Measure the samples and the losses of the model, look for copies of training images, and bound the likelihood.

    `data` is the folder with both splits, `reports` that of metrics.json, of the curves and of the picture. Everything
    that the metrics depend on is written to `protocol`.
    """
    group, settings = processes.join(params.runtime), params.evaluate
    paths = data / "train.safetensors", data / "test.safetensors"
    train, test = dataset.read_splits(*paths)
    drawn, samples_digest = sample_files.read(samples)
    snapshots = sample_files.read_snapshots(snapshot_samples)
    images = {"samples": drawn.images} | {f"{step:08d}": shown for step, shown in snapshots.items()}
    judge = Judge.load(extractor, reference, settings.seed, group.device)
    _check_origin(samples, drawn.model_digest, model, files.read_metadata(model, modelfile.FORMAT)["digest"])
    _check_origin(reference, judge.reference.extractor_digest, extractor, judge.extract.digest)
    for path, split, digest in zip(paths, (train, test), judge.reference.image_digests, strict=True):
        _check_origin(reference, digest, path, split.digest)
    if any(shown.shape[1:] != train.images.shape[1:] for shown in images.values()):
        raise FileError(f"{snapshot_samples} has images of another shape than those of {paths[0]}", snapshot_samples)
    count = len(drawn.images) * len(images)
    if stage.compiles("evaluate", params.runtime, group.device, judge.extract.parameters, count):
        judge = replace(judge, extract=judge.extract.compiled(group.device, params.runtime.deterministic))

    def features_of(name: str, done: int) -> Iterator[dict[str, Tensor]]:
        return map(vars, judge.extract.batches(images[name], group, done))

    with kept.work("evaluate", params.runtime, group, [samples, snapshot_samples, extractor]) as work:
        rows = work.rows("evaluate samples", {name: len(images[name]) for name in images}, features_of)
        if rows is None:
            return
        features, *earlier = (Features(**rows[name]) for name in images)
        fidelity = judge.compare(features)
        curve = judge.snapshot_curve(dict(zip(snapshots, earlier, strict=True)))
        with stage.bar("evaluate neighbours", len(train.images), "img") as bar:
            distances = judging.look_for_copies(
                *(drawn.images, train.images, test.images, settings.neighbours, reports / "neighbours.png"),
                *(group.device, bar.update),
            )
        result = {
            judge.reference.extractor: fidelity.metrics | judge.class_metrics(features, drawn.labels),
            "neighbours": distances,
            **judging.best_snapshot(curve),
        }
        measured = judging.protocol(params.data, fidelity, drawn, samples_digest, judge.reference)
        of_model, how, terms = _measure_model(modelfile.load(model, group.device), train, test, params, drawn)
        result |= of_model
        measured |= how
        tables.write_points(reports / "likelihood.csv", terms, LIKELIHOOD)
        tables.write_points(reports / "snapshots.csv", curve, SNAPSHOTS)
        tables.write_shares(reports / "classes.csv", judge.class_shares(features, drawn.labels, train.classes))
        for path, content in ((reports / "metrics.json", result), (protocol, measured)):
            files.write_text(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _check_origin(path: Path, recorded: str, origin: Path, digest: str) -> None:
    """Raise `FileError` unless a file was made from the file `origin`, whose digest it has recorded."""
    if recorded != digest:
        raise FileError(f"{path} was not made from {origin}: one of the two files was replaced", path)


def _measure_model(
    network: Model, train: Dataset, test: Dataset, params: Params, drawn: Samples
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, float]]]:
    """The losses and the bound on the likelihood: metrics, what they depend on, and the terms of the bound."""
    settings = params.evaluate
    parameters = sum(weight.numel() for weight in network.network.parameters())
    with stage.bar("evaluate losses", 2 * losses.draws_for(losses.images_of(train, test)), "img") as bar:
        loss, protocol = losses.compare(
            network, train, test, params.train, settings.seed, drawn.settings["batch_size"], bar.update
        )
    result = {"loss": loss}
    measured: dict[str, Any] = {"network_parameters": parameters, **protocol}
    if not settings.likelihood_images:
        return result, measured, []
    sigma: Sigma = drawn.settings["sigma"] or "large"
    denoiser, chosen = network.denoiser, test.images[: settings.likelihood_images]
    with stage.bar("evaluate likelihood", len(chosen) * denoiser.process.timesteps, "img") as bar:
        likelihood, terms = judging.bound_likelihood(denoiser, chosen, settings.seed, sigma, bar.update)
    measured |= {"likelihood_images": len(chosen), "likelihood_sigma": sigma}
    return result | {"likelihood": likelihood}, measured, terms


if __name__ == "__main__":
    stage.run(evaluate)
