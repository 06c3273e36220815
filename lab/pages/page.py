"""The report as one page that opens from disk: reports/index.html; nothing is computed here."""

from collections.abc import Sequence
from dataclasses import dataclass

from ddpm.tables import Share
from lab.pages import contents, embed, plots, reproduce
from lab.pages.contents import CAPTIONS, METRICS, Report
from lab.pages.embed import Picture
from lab.pages.plots import Line
from lab.pages.templates import render

_PIXEL_ART = 48  # pixels: smaller images are shown enlarged, and stay crisp
_LISTED = 20  # classes


@dataclass(frozen=True)
class Card:
    """A headline number, and what it stands beside."""

    name: str
    value: str
    text: str
    beside: Sequence[tuple[str, str]]  # number, and whose


def page(report: Report) -> str:
    """The whole report."""
    return render(
        "page.html",
        report=report,
        contents=contents,
        cards=list(cards(report)),
        unmeasured=[(name, contents.number(there)) for name, here, there in contents.published(report) if here is None],
        pictures={name: embed.from_file(path, CAPTIONS[name]) for name, path in report.pictures.items()},
        pixels="pixels" if report.params["data"]["image_size"] < _PIXEL_ART else "",
        bound=_bound(report),
        classes=_classes(report.shares),
        commands=reproduce.reproduce(report.params, report.defaults),
    )


def cards(report: Report) -> list[Card]:
    """The numbers that one looks at first, each beside that of real images and those from elsewhere."""
    metrics, protocol = report.metrics, report.protocol
    name = protocol["extractor"]
    values = {key: contents.number(value) for key, value in metrics[name].items()}
    beside = {
        "fid": [
            ("fid_floor", "the floor: {matched} test images"),
            ("fid_matched", "by {matched} samples"),
        ],
        "is": [("is_real", "training images"), ("is_std", "deviation over {is_splits} splits")],
    }
    found = [
        Card(
            _NAMES[key],
            values[key],
            _BETTER[key],
            [(values[other], text.format_map(protocol)) for other, text in beside.get(key, []) if other in values]
            + _from_elsewhere(report, f"{name}.{key}"),
        )
        for key in _NAMES
        if key in values
    ]
    if bound := metrics.get("likelihood"):
        elsewhere = _from_elsewhere(report, "likelihood.bits_per_dim")
        text = "bits per dimension, at most; lower is better"
        found.append(Card("Likelihood", contents.number(bound["bits_per_dim"]), text, elsewhere))
    return found


_NAMES = {
    "fid": "FID",
    "is": "Inception Score",
    "precision": "Precision",
    "recall": "Recall",
    "label_agreement": "Label agreement",
}
_BETTER = {
    "fid": "lower is better",
    "is": "higher is better",
    **{key: METRICS[key] for key in ("precision", "recall", "label_agreement")},
}


def _from_elsewhere(report: Report, metric: str) -> list[tuple[str, str]]:
    section = report.params["published"]
    if not section or metric not in section["metrics"]:
        return []
    return [(contents.number(section["metrics"][metric]), section["source"])]


def _bound(report: Report) -> list[Picture]:
    times = [point["t"] for point in report.bound]
    labels = {"bits_per_dim": "bits per dimension", "x_0_error": "mean squared error of x_0"}
    return [
        _panel(times, [point[key] for point in report.bound], "diffusion time t", label)
        for key, label in labels.items()
        if times
    ]


def _panel(x: Sequence[float], y: Sequence[float], x_label: str, y_label: str) -> Picture:
    told = f"{y_label[:1].upper()}{y_label[1:]} over {x_label}: from {contents.number(y[0])} at {x[0]:g} "
    return plots.lines([Line(y_label, x, y)], x_label, y_label, f"{told}to {contents.number(y[-1])} at {x[-1]:g}")


def _classes(shares: Sequence[Share]) -> Picture | None:
    """The classes, of very many those whose shares differ most, in their order."""
    if not shares:
        return None
    apart = sorted(shares, key=lambda share: abs(share.samples - share.data), reverse=True)[:_LISTED]
    shown = [share for share in shares if share in apart]
    groups = {
        "training images": [100 * share.data for share in shown],
        "samples": [100 * share.samples for share in shown],
    }
    told = f"Share of each class in training images and in samples, {len(shown)} of {len(shares)} classes"
    return plots.bars([share.name for share in shown], groups, "share of the images (%)", told)
