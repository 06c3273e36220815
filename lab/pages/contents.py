"""The contents of a report that its page and its Markdown share. Nothing is computed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

import yaml

from ddpm.alternatives import in_use
from ddpm.tables import Share
from lab.experiment import identity
from lab.experiment.dvcfile import flatten
from lab.pages import reproduce

METRICS = {  # descriptions, with fields of the protocol
    "useless": "1: the extractor is useless, and so are its metrics; see the warnings",
    "fid": "Fréchet distance between samples and training images",
    "fid_matched": "FID of {matched} samples",
    "fid_floor": "FID of {matched} test images: the floor",
    "kid": "kernel distance between samples and training images",
    "is": "Inception Score of samples",
    "is_std": "standard deviation of the Inception Score over {is_splits} splits",
    "is_real": "Inception Score of {is_real_images} training images",
    "precision": "share of samples within the manifold of the training images",
    "recall": "share of training images within the manifold of the samples",
    "class_distance": "total variation between the classes of samples and of training images, 0 to 1",
    "label_agreement": "share of samples that the classifier assigns to their label",
    "accuracy": "accuracy of the classifier on test images",
    "bits_per_dim": "variational bound of {likelihood_images} test images",
    "rate": "bits to encode x_1",
    "distortion": "bits to encode x_0 given x_1",
    "train": "training loss on {loss_images} training images, with the averaged weights and without dropout",
    "test": "the same loss on {loss_images} test images, which are not in the training data",
    "smallest": "smallest distance of a sample",
    "median": "median distance of the first {neighbours_images} samples",
    "median_of_test": "median distance of test images",
}
CAPTIONS = {
    "samples": "Samples",
    "real": "Test images",
    "denoising": "Sampling: x_t and the x_0 that the network predicts from it",
    "trajectory": "The first samples, from noise to images",
    "noising": "The forward process: x_t of test images and the x_0 that the network predicts from it",
    "neighbours": "The samples nearest to a training image, with the distance in grey levels",
    "loss": "Loss in training and of the final weights, gradient norm and, if there are snapshots, their FID",
}
_IN_NAME = {  # settings
    *(f"data.{key}" for key in ("source", "path", "digest", "image_size", "channels")),
    *(f"sample.{key}" for key in ("sampler", "steps")),
}
_IN_TITLE = 3  # differences from the default recipe
NOT_MEASURED = "not measured"
_PROVENANCE = {  # keys of the protocol that name files; the other keys describe the measurement
    "data": "images",
    "train_digest": "training images, sha256",
    "test_digest": "test images, sha256",
    "model_digest": "model, sha256",
    "samples_digest": "samples, sha256",
    "extractor_digest": "extractor, sha256",
}


@dataclass(frozen=True)
class Report:
    """The results of the other stages and the identity of the experiment."""

    metrics: Mapping[str, Any]  # reports/metrics.json
    protocol: Mapping[str, Any]  # everything that the metrics depend on
    points: Sequence[Mapping[str, float]]  # reports/train.csv
    snapshots: Sequence[Mapping[str, float]]  # reports/snapshots.csv
    bound: Sequence[Mapping[str, float]]  # reports/likelihood.csv
    shares: Sequence[Share]  # reports/classes.csv
    params: Mapping[str, Any]  # a complete params.yaml
    defaults: Mapping[str, Any]  # recipes/default.yaml
    pictures: Mapping[str, Path]  # by the names of CAPTIONS
    fingerprint: str  # of the experiment
    code: str  # digest of the code that determines the results


def needed(metrics: Mapping[str, Any]) -> list[str]:
    """The keys of the protocol that the pages show beside these metrics."""
    shown = {key for values in metrics.values() for key in values}
    described = (Formatter().parse(METRICS[key]) for key in METRICS.keys() & shown)
    fields = {field for parts in described for _, field, _, _ in parts if field}
    return sorted({*_PROVENANCE, "data_pinned", "extractor", "warnings", *fields})


def name(report: Report) -> str:
    """The images and the sampler of the experiment."""
    data, sample = report.params["data"], report.params["sample"]
    source = identity.images(data["source"], data.get("path"))
    steps = f"{sample['steps']} step{'s' * (sample['steps'] != 1)}"
    return f"{source} {data['image_size']}×{data['image_size']}, {sample['sampler']} {steps}"


def differences(report: Report) -> str:
    """The first settings that differ from the default recipe and are not in the name, and the number of the others."""
    necessary = reproduce.necessary(report.params, report.defaults)
    changed = [
        f"{key} = {plain(value)}"
        for key, value in necessary.items()
        if key not in _IN_NAME and not key.startswith("reported")
    ]
    more = len(changed) - _IN_TITLE
    rest = f" … and {more} more setting{'s' * (more != 1)}" if more > 0 else ""
    return ", ".join(changed[:_IN_TITLE]) + rest


def title(report: Report) -> str:
    """The name of the experiment and what differs from the default recipe."""
    return f"{name(report)}: {differences(report) or 'the settings of the default recipe'}"


def described(metrics: Mapping[str, Any], protocol: Mapping[str, Any], section: str) -> list[tuple[str, str, str]]:
    """The known metrics in a section of reports/metrics.json: name, value, description."""
    values = metrics[section]
    return [
        (f"{section}.{key}", number(values[key]), description.format_map(protocol))
        for key, description in METRICS.items()
        if key in values
    ]


def main_metrics(metrics: Mapping[str, Any], protocol: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The metrics of the extractor and the losses: name, value, description."""
    sections = [section for section in (protocol["extractor"], "loss") if section in metrics]
    return [row for section in sections for row in described(metrics, protocol, section)]


def final_losses(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The losses of the final weights by the images on which they are measured."""
    names, losses = {"train": "training images", "test": "test images"}, metrics.get("loss", {})
    return {names[split]: losses[split] for split in names if split in losses}


def reported(report: Report) -> list[tuple[str, str, str]]:
    """The metrics that are reported elsewhere: name, value here, value there."""
    section, here = report.params["reported"], flatten(report.metrics)
    return [
        (name, number(here[name]) if name in here else NOT_MEASURED, number(value))
        for name, value in (section["metrics"].items() if section else ())
    ]


def class_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table of classes, with the agreement if it is measured."""
    head = ["class", "training images", "samples", "classified as their label"]
    rows = [[share.name, *map(_percent, (share.data, share.samples, share.agreement))] for share in report.shares]
    measured = any(share.agreement is not None for share in report.shares)
    return (head, rows) if measured else (head[:-1], [row[:-1] for row in rows])


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def changes(report: Report) -> list[tuple[str, str, str]]:
    """The settings in use that differ from the default recipe's: name, value here, value there.

    The section `reported` is left out because it changes no result.
    """
    here, there = (
        flatten({section: values for section, values in in_use(params).items() if section != "reported"})
        for params in (report.params, report.defaults)
    )
    both = ((key, here.get(key, "absent"), there.get(key, "absent")) for key in here | there)
    return [(key, plain(value), plain(default)) for key, value, default in both if value != default]


def all_parameters(report: Report) -> str:
    """The complete parameters as YAML."""
    return yaml.safe_dump(dict(report.params), sort_keys=False, allow_unicode=True).strip()


def measured(report: Report) -> list[tuple[str, str]]:
    """The protocol without provenance: name and value."""
    elsewhere = {*_PROVENANCE, "data_pinned", "warnings"}
    return [(key, plain(value)) for key, value in sorted(flatten(report.protocol).items()) if key not in elsewhere]


def provenance(report: Report) -> list[tuple[str, str]]:
    """The origin of the results: item and its name or digest."""
    protocol, params = report.protocol, report.params
    seeds = {name: params[name]["seed"] for name in ("data", "train", "sample", "evaluate")}
    pinned = "yes, by their digest" if protocol["data_pinned"] else "no"
    return [
        ("experiment", report.fingerprint),
        ("code, sha256", report.code),
        *[(item, plain(protocol[key])) for key, item in _PROVENANCE.items()],
        ("images pinned", pinned),
        ("seeds", ", ".join(f"{name} {plain(seed)}" for name, seed in seeds.items())),
    ]


def number(value: float) -> str:
    """Format a number with four significant digits."""
    return f"{value:.4g}"


def plain(value: Any) -> str:
    """Format the value of a parameter as in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
