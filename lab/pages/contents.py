"""The contents of a report that its page and its Markdown share. Nothing is computed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ddpm.alternatives import in_use
from ddpm.tables import Share
from lab.experiment.dvcfile import flatten

METRICS = {  # descriptions, with fields of the protocol
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
    "loss": "Loss, gradient norm and, if there are snapshots, their FID over optimizer steps",
}
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


def described(metrics: Mapping[str, Any], protocol: Mapping[str, Any], section: str) -> list[tuple[str, str, str]]:
    """The known metrics in a section of reports/metrics.json: name, value, description."""
    values = metrics[section]
    return [
        (f"{section}.{key}", number(values[key]), description.format_map(protocol))
        for key, description in METRICS.items()
        if key in values
    ]


def reported(report: Report) -> list[tuple[str, str, str]]:
    """The metrics that are reported elsewhere: name, value here, value there."""
    section, here = report.params["reported"], flatten(report.metrics)
    return [
        (name, number(here[name]) if name in here else NOT_MEASURED, number(value))
        for name, value in (section["metrics"].items() if section else ())
    ]


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
