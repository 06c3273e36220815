"""The contents of a report that its page and its Markdown share. Nothing is computed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ddpm.alternatives import in_use
from ddpm.tables import Share
from lab.experiment.dvcfile import flatten

METRICS = {
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
}
LIKELIHOOD = {
    "bits_per_dim": "variational bound of {images} test images",
    "rate": "bits to encode x_1",
    "distortion": "bits to encode x_0 given x_1",
}
NEIGHBOURS = {
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
CHAIN = "The forward process adds noise to images. Sampling reverses it with the network's predictions of x_0."
NOT_COMPARABLE = "Distances measured with different extractors are not comparable."
UNCHANGED = "All parameters are those of recipes/default.yaml."
REPRODUCE = "With the code of this digest, these commands give the same parameters and therefore the same results:"
REPRODUCE_FROM_FILE = "Save all parameters above as params.yaml, then run with the code of this digest:"
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
    points: Sequence[Mapping[str, float]]  # reports/train.csv
    snapshots: Sequence[Mapping[str, float]]  # reports/snapshots.csv
    bound: Sequence[Mapping[str, float]]  # reports/likelihood.csv
    shares: Sequence[Share]  # reports/classes.csv
    params: Mapping[str, Any]  # a complete params.yaml
    defaults: Mapping[str, Any]  # recipes/default.yaml
    pictures: Mapping[str, Path]  # by the names of CAPTIONS
    fingerprint: str  # of the experiment
    code: str  # digest of the code that determines the results

    @property
    def protocol(self) -> Mapping[str, Any]:
        """Everything that the metrics depend on."""
        return dict(self.metrics["protocol"])


_NAMES = {
    "unet": "U-Net",
    "basic": "basic U-Net",
    "ancestral": "ancestral sampling",
    "ddim": "DDIM",
    "dpm_solver": "DPM-Solver++",
}


def title(report: Report) -> str:
    """The title of a report: the data and the image size."""
    size = report.params["data"]["image_size"]
    return f"{report.protocol['data']}, {size}×{size}"


def summary(report: Report) -> str:
    """The model, its training and the sampler in two sentences."""
    network, train, sample = (report.params[section] for section in ("network", "train", "sample"))
    kind = "A conditional" if network["conditional"] else "A"
    predicted = report.params["diffusion"]["prediction"]
    trained = f"trained for {train['steps']} steps" if train["steps"] else "not trained in this experiment"
    samples = f"{sample['count']} samples with {_NAMES[sample['sampler']]} in {sample['steps']} steps"
    guidance = "" if sample["guidance"] is None else f" and guidance {plain(sample['guidance'])}"
    return f"{kind} {_NAMES[network['kind']]} that predicts {predicted}, {trained}. {samples}{guidance}."


def extractor(protocol: Mapping[str, Any]) -> str:
    """The extractor in a sentence."""
    kinds = {
        "classifier": "a classifier trained on the training images",
        "inception": "torch-fidelity's InceptionV3, the one that papers use",
    }
    return f"The extractor is {kinds[protocol['extractor']]}."


def of_extractor(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The metrics measured with the extractor: name, value, description."""
    name = metrics["protocol"]["extractor"]
    return _described(name, metrics[name], METRICS, metrics["protocol"])


def of_likelihood(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The variational bound and its parts in bits per dimension, if measured."""
    bound = metrics.get("likelihood", {})
    return _described("likelihood", bound, LIKELIHOOD, bound)


def of_neighbours(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Distances to the nearest training image, in grey levels."""
    return _described("neighbours", metrics.get("neighbours", {}), NEIGHBOURS, metrics["protocol"])


def _described(
    prefix: str, values: Mapping[str, Any], descriptions: Mapping[str, str], fields: Mapping[str, Any]
) -> list[tuple[str, str, str]]:
    return [
        (f"{prefix}.{key}", number(values[key]), description.format_map(fields))
        for key, description in descriptions.items()
        if key in values
    ]


def reported(report: Report) -> list[tuple[str, float | None, float]]:
    """Each metric that is reported elsewhere: name, value here if it was measured, and value there."""
    section = report.params["reported"]
    here = flatten(report.metrics)
    return [(name, here.get(name), value) for name, value in section["metrics"].items()] if section else []


def training(points: Sequence[Mapping[str, float]]) -> str:
    """The first and the last loss in a sentence."""
    if not points:
        return "The model was not trained in this experiment: train.steps is 0."
    first, last = points[0], points[-1]
    return (
        f"{int(last['step'])} steps. The loss changed from {number(first['loss'])} "
        f"to {number(last['loss'])} (means over windows of steps)."
    )


def best_snapshot(metrics: Mapping[str, Any]) -> str:
    """The best snapshot and the final model in a sentence, or an empty string."""
    if "snapshots" not in metrics:
        return ""
    best, final = metrics["snapshots"], metrics[metrics["protocol"]["extractor"]]["fid"]
    return (
        f"The snapshot of step {int(best['best_step'])} has the smallest FID, {number(best['best_fid'])}. "
        f"The FID of the final model is {number(final)}."
    )


def class_balance(metrics: Mapping[str, Any]) -> str:
    """The metrics of the classes in sentences, or an empty string."""
    measured = metrics[metrics["protocol"]["extractor"]]
    if "class_distance" not in measured:
        return ""
    text = (
        f"According to the classifier, {measured['class_distance']:.1%} of the samples would have to change their "
        f"class to match the class shares of the training images."
    )
    if "label_agreement" in measured:
        text += f" The classifier assigns {measured['label_agreement']:.1%} of the samples to their label."
    return text


def memorisation(metrics: Mapping[str, Any]) -> str:
    """The distances to training images and their interpretation in sentences, or an empty string."""
    if "neighbours" not in metrics:
        return ""
    distance, count = metrics["neighbours"], metrics["protocol"]["neighbours_images"]
    return (
        f"The median distance from a sample to its nearest training image is {number(distance['median'])} grey levels "
        f"(root mean square over pixels, first {count} samples). For test images, which are not in the training data, "
        f"it is {number(distance['median_of_test'])}. Copies would be much closer to a training image than test images "
        f"are. The smallest distance of a sample is {number(distance['smallest'])}."
    )


def changes(report: Report) -> list[tuple[str, str, str]]:
    """The settings in use that differ from the default recipe's: name, value here, value there.

    The section `reported` is left out because it changes no result.
    """
    here, there = (
        flatten({section: values for section, values in in_use(params).items() if section != "reported"})
        for params in (report.params, report.defaults)
    )
    return [
        (key, plain(here.get(key, "absent")), plain(there.get(key, "absent")))
        for key in [*here, *(key for key in there if key not in here)]
        if here.get(key, "absent") != there.get(key, "absent")
    ]


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
