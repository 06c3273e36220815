"""What a report tells, in the words that its page and its Markdown share; nothing is computed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ddpm.tables import Share
from lab.experiment.dvcfile import flatten

METRICS = {
    "fid": "Fréchet distance, samples to training images",
    "fid_matched": "the same from {matched} samples",
    "fid_floor": "{matched} test images to training images: the floor",
    "kid": "kernel distance, samples to training images",
    "is": "Inception Score of samples",
    "is_std": "its standard deviation over {is_splits} splits",
    "is_real": "Inception Score of {is_real_images} training images",
    "precision": "samples that look like training images",
    "recall": "training images that samples cover",
    "class_distance": "between the shares of the classes in samples and in training images: 0 (equal) to 1",
    "label_agreement": "samples in which the classifier sees the class asked for",
    "accuracy": "of the classifier, on test images",
}
LIKELIHOOD = {
    "bits_per_dim": "the variational bound of {images} test images",
    "rate": "of it, to send x_1",
    "distortion": "of it, to name x_0, given x_1",
}
NEIGHBOURS = {
    "smallest": "of the sample that comes closest",
    "median": "half of the first {neighbours_images} samples are closer",
    "median_of_test": "half of the test images are closer",
}
CAPTIONS = {
    "samples": "Samples",
    "real": "Test images",
    "denoising": "Samples appearing out of noise: x_t, and the x_0 that the network predicts from it",
    "trajectory": "The first samples on their way from noise",
    "noising": "Test images turning into noise, and the x_0 that the network predicts",
    "neighbours": "The samples nearest to a training image, with the distance in grey levels",
    "loss": "Loss and gradient norm while training, and FID of the snapshots if there are any",
}
CHAIN = "Noise is added to test images, and the network is asked what they were. Drawing samples goes the other way."
NOT_COMPARABLE = "Distances under one extractor are not comparable with those under another."
UNCHANGED = "All are those of recipes/default.yaml."
REPRODUCE = "With the code of this digest, these commands give the same parameters, and so the same results:"
REPRODUCE_FROM_FILE = "Save all parameters above as params.yaml; then, with the code of this digest:"
_ORIGIN = {  # of the protocol: where things come from, told apart from how they were measured
    "data": "images",
    "train_digest": "training images, sha256",
    "test_digest": "test images, sha256",
    "model_digest": "model, sha256",
    "samples_digest": "samples, sha256",
    "extractor_digest": "extractor, sha256",
}


@dataclass(frozen=True)
class Report:
    """What the other stages have written, and who the experiment is."""

    metrics: Mapping[str, Any]  # reports/metrics.json
    points: Sequence[Mapping[str, float]]  # reports/train.csv
    snapshots: Sequence[Mapping[str, float]]  # reports/snapshots.csv
    bound: Sequence[Mapping[str, float]]  # reports/likelihood.csv
    shares: Sequence[Share]  # reports/classes.csv
    params: Mapping[str, Any]  # a whole params.yaml
    defaults: Mapping[str, Any]  # recipes/default.yaml
    pictures: Mapping[str, Path]  # by the names of CAPTIONS
    fingerprint: str  # of the experiment
    code: str  # digest of the code that determines the results

    @property
    def protocol(self) -> Mapping[str, Any]:
        """All that the metrics depend on."""
        return dict(self.metrics["protocol"])


@dataclass(frozen=True)
class Metric:
    """A metric by its dotted name, and what it is."""

    name: str
    value: float
    text: str


_SPOKEN = {
    "unet": "U-Net",
    "basic": "basic U-Net",
    "ancestral": "ancestral sampling",
    "ddim": "DDIM",
    "dpm_solver": "DPM-Solver++",
}


def title(report: Report) -> str:
    """Which images."""
    size = report.params["data"]["image_size"]
    return f"{report.protocol['data']}, {size}×{size}"


def summary(report: Report) -> str:
    """What was done, in two sentences."""
    network, train, sample = (report.params[section] for section in ("network", "train", "sample"))
    kind = "A conditional" if network["conditional"] else "A"
    predicted = report.params["diffusion"]["prediction"]
    trained = f"trained for {train['steps']} steps" if train["steps"] else "not trained here"
    drawn = f"{sample['count']} samples by {_SPOKEN[sample['sampler']]} in {sample['steps']} steps"
    guided = "" if sample["guidance"] is None else f", with guidance {plain(sample['guidance'])}"
    return f"{kind} {_SPOKEN[network['kind']]} that predicts {predicted}, {trained}. {drawn}{guided}."


def extractor(protocol: Mapping[str, Any]) -> str:
    """What the metrics were measured with."""
    kinds = {
        "classifier": "a classifier trained on these very images",
        "inception": "torch-fidelity's InceptionV3, which papers quote",
    }
    return f"The extractor is {kinds[protocol['extractor']]}."


def of_extractor(metrics: Mapping[str, Any]) -> list[Metric]:
    """What the extractor measured."""
    name = metrics["protocol"]["extractor"]
    return _described(name, metrics[name], METRICS, metrics["protocol"])


def of_likelihood(metrics: Mapping[str, Any]) -> list[Metric]:
    """The bound and its parts, in bits per dimension, where it was measured."""
    bound = metrics.get("likelihood", {})
    return _described("likelihood", bound, LIKELIHOOD, bound)


def of_neighbours(metrics: Mapping[str, Any]) -> list[Metric]:
    """Distances to the nearest training image, in grey levels."""
    return _described("neighbours", metrics.get("neighbours", {}), NEIGHBOURS, metrics["protocol"])


def _described(
    prefix: str, values: Mapping[str, Any], texts: Mapping[str, str], facts: Mapping[str, Any]
) -> list[Metric]:
    return [
        Metric(f"{prefix}.{key}", values[key], text.format_map(facts)) for key, text in texts.items() if key in values
    ]


def published(report: Report) -> list[tuple[str, float | None, float]]:
    """Each published number: the metric, what it is here if it was measured, and the number."""
    section = report.params["published"]
    here = flatten(report.metrics)
    return [(name, here.get(name), value) for name, value in section["metrics"].items()] if section else []


def training(points: Sequence[Mapping[str, float]]) -> str:
    """How the loss went."""
    if not points:
        return "The model was not trained here: train.steps is 0."
    first, last = points[0], points[-1]
    return (
        f"{int(last['step'])} steps; the loss went from {number(first['loss'])} "
        f"to {number(last['loss'])} (means over a window of steps)."
    )


def best_snapshot(metrics: Mapping[str, Any]) -> str:
    """The best snapshot beside the final model, or nothing."""
    if "snapshots" not in metrics:
        return ""
    best, final = metrics["snapshots"], metrics[metrics["protocol"]["extractor"]]["fid"]
    return (
        f"Of the snapshots, that of step {int(best['best_step'])} has the smallest FID, {number(best['best_fid'])}; "
        f"the final model's is {number(final)}."
    )


def class_balance(metrics: Mapping[str, Any]) -> str:
    """How the samples' classes compare with the data's, or nothing."""
    measured = metrics[metrics["protocol"]["extractor"]]
    if "class_distance" not in measured:
        return ""
    told = (
        f"As the classifier sees both, {measured['class_distance']:.1%} of the samples would have to be of another "
        f"class for their shares to be those of the training images."
    )
    if "label_agreement" in measured:
        told += f" It sees the class asked for in {measured['label_agreement']:.1%} of the samples."
    return told


def memorisation(metrics: Mapping[str, Any]) -> str:
    """How close samples come to training images, and how to read it; or nothing."""
    if "neighbours" not in metrics:
        return ""
    distance, count = metrics["neighbours"], metrics["protocol"]["neighbours_images"]
    return (
        f"The median distance from a sample to its nearest training image is {number(distance['median'])} grey levels "
        f"(root mean square over pixels, of the first {count} samples); from a test image, which the model has never "
        f"seen, it is {number(distance['median_of_test'])}. Samples that were copies would lie much closer than test "
        f"images do. The closest one lies at {number(distance['smallest'])}."
    )


def changes(report: Report) -> list[tuple[str, str, str]]:
    """The parameters that differ from the default recipe's: name, value here, value there.

    Not what is published, which changes no result.
    """
    here, there = (
        flatten({section: values for section, values in params.items() if section != "published"})
        for params in (report.params, report.defaults)
    )
    return [
        (key, plain(here.get(key, "absent")), plain(there.get(key, "absent")))
        for key in [*here, *(key for key in there if key not in here)]
        if here.get(key, "absent") != there.get(key, "absent")
    ]


def all_parameters(report: Report) -> str:
    """A params.yaml of this experiment; where and how it ran is as in the default recipe."""
    return yaml.safe_dump(dict(report.params), sort_keys=False, allow_unicode=True).strip()


def measured(report: Report) -> list[tuple[str, str]]:
    """How the metrics were measured: name and value."""
    apart = {*_ORIGIN, "data_pinned", "warnings"}
    return [(key, plain(value)) for key, value in sorted(flatten(report.protocol).items()) if key not in apart]


def provenance(report: Report) -> list[tuple[str, str]]:
    """Where the results come from: what, and its name or digest."""
    protocol, params = report.protocol, report.params
    seeds = {name: params[name]["seed"] for name in ("data", "train", "sample", "evaluate")}
    pinned = "checked against the digest that they must have" if protocol["data_pinned"] else "not pinned"
    return [
        ("experiment", report.fingerprint),
        ("code, sha256", report.code),
        *[(text, plain(protocol[key])) for key, text in _ORIGIN.items()],
        ("images are", pinned),
        ("seeds", ", ".join(f"{name} {plain(seed)}" for name, seed in seeds.items())),
    ]


def number(value: float) -> str:
    """Four digits."""
    return f"{value:.4g}"


def plain(value: Any) -> str:
    """A parameter's value as a reader of YAML knows it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
