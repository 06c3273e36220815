"""The report as Markdown, from what the other stages have written; nothing is computed here."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

_DESCRIPTIONS = {
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
_LIKELIHOOD = {
    "bits_per_dim": "the variational bound of {images} test images",
    "rate": "of it, to send x_1",
    "distortion": "of it, to name x_0, given x_1",
}


@dataclass(frozen=True)
class Report:
    """What the page shows. Paths are relative to the page."""

    metrics: Mapping[str, Any]  # reports/metrics.json
    points: Sequence[Mapping[str, float]]  # reports/train.csv
    params: Mapping[str, Any]  # the sections that can change a result
    defaults: Mapping[str, Any]  # recipes/default.yaml
    pictures: Mapping[str, str]  # caption to path


def page(report: Report) -> str:
    """The whole report."""
    parts = [
        "# Report",
        *_warnings(report.metrics["protocol"]),
        *[f"![{caption}]({path})\n\n*{caption}*" for caption, path in report.pictures.items()],
        "## Metrics",
        *_metrics(report.metrics),
        "## Training",
        _training(report.points),
        *_snapshots(report.metrics),
        "## Parameters",
        _changes(report.params, report.defaults),
        f"```yaml\n{yaml.safe_dump(dict(report.params), sort_keys=False).strip()}\n```",
        "## Protocol",
        _table(("", ""), [(f"`{key}`", _cell(value)) for key, value in sorted(_protocol(report.metrics).items())]),
        "Reproduce this page with `dvc repro`, with the parameters above in `params.yaml`.",
    ]
    return "\n\n".join(parts) + "\n"


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """The metrics of the extractor as a table; also the README's."""
    protocol = metrics["protocol"]
    extractor = protocol["extractor"]
    rows = [
        (f"`{extractor}.{key}`", _number(metrics[extractor][key]), description.format_map(protocol))
        for key, description in _DESCRIPTIONS.items()
        if key in metrics[extractor]
    ]
    return _table(("metric", "value", "what it is"), rows)


def _metrics(metrics: Mapping[str, Any]) -> list[str]:
    protocol = metrics["protocol"]
    parts = [
        f"The extractor is {_extractor(protocol)}. Distances under one extractor are not comparable with those "
        f"under another.",
        metrics_table(metrics),
    ]
    if "neighbours" in metrics:
        rows = [(f"`neighbours.{key}`", _number(value)) for key, value in metrics["neighbours"].items()]
        parts.append(_table(("distance to the nearest training image, in grey levels", "value"), rows))
    if bound := metrics.get("likelihood"):
        described = [
            (f"`likelihood.{key}`", _number(bound[key]), text.format_map(bound)) for key, text in _LIKELIHOOD.items()
        ]
        parts.append(_table(("negative log likelihood, in bits per dimension", "value", "what it is"), described))
    return parts


def _extractor(protocol: Mapping[str, Any]) -> str:
    if protocol["extractor"] == "classifier":
        return "a classifier trained on these very images"
    return "torch-fidelity's InceptionV3"


def _warnings(protocol: Mapping[str, Any]) -> list[str]:
    return [f"> **Warning:** {warning}." for warning in protocol["warnings"]]


def _training(points: Sequence[Mapping[str, float]]) -> str:
    if not points:
        return "The model was not trained here (`train.steps: 0`)."
    first, last = points[0], points[-1]
    return (
        f"{int(last['step'])} steps; the loss fell from {_number(first['loss'])} "
        f"to {_number(last['loss'])} (means over a window of steps)."
    )


def _snapshots(metrics: Mapping[str, Any]) -> list[str]:
    if "snapshots" not in metrics:
        return []
    best, final = metrics["snapshots"], metrics[metrics["protocol"]["extractor"]]["fid"]
    return [
        f"Of the snapshots, that of step {int(best['best_step'])} has the smallest FID, {_number(best['best_fid'])}; "
        f"the final model's is {_number(final)}."
    ]


def _changes(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    rows = [
        (f"`{key}`", _cell(value), _cell(flatten(defaults).get(key, "absent")))
        for key, value in flatten(params).items()
        if flatten(defaults).get(key, "absent") != value
    ]
    if not rows:
        return "All are those of `recipes/default.yaml`."
    return _table(("parameter", "here", "in `recipes/default.yaml`"), rows)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _protocol(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flatten(metrics["protocol"]).items() if key != "warnings"}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _cell(value: Any) -> str:
    """Text that cannot break the table or become markup: names come from the user's data."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[\\`*_(|]", r"\\\g<0>", html.escape(" ".join(text.splitlines()), quote=False))
