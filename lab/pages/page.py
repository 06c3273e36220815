"""The report as one self-contained HTML page, reports/index.html."""

from collections.abc import Sequence
from dataclasses import dataclass

from ddpm.tables import Share
from lab.pages import contents, embed, plots, reproduce
from lab.pages.contents import CAPTIONS, METRICS, Report
from lab.pages.embed import Picture
from lab.pages.plots import Line
from lab.pages.templates import render

_PIXEL_ART = 48  # pixels; smaller images are enlarged without smoothing
_CLASSES = 20
_CARDS: dict[str, tuple[str, str, dict[str, str]]] = {  # name, description, labels of other metrics
    "fid": (
        "FID",
        "lower is better",
        {"fid_floor": "floor, {matched} test images", "fid_matched": "with {matched} samples"},
    ),
    "is": (
        "Inception Score",
        "higher is better",
        {"is_real": "training images", "is_std": "standard deviation over {is_splits} splits"},
    ),
    "precision": ("Precision", METRICS["precision"], {}),
    "recall": ("Recall", METRICS["recall"], {}),
    "label_agreement": ("Label agreement", METRICS["label_agreement"], {}),
    "bits_per_dim": ("Likelihood", "bits per dimension (upper bound); lower is better", {}),
}


@dataclass(frozen=True)
class Card:
    """A headline metric with reference values."""

    name: str
    value: str
    description: str
    references: Sequence[tuple[str, str]]  # value and label


def page(report: Report) -> str:
    """Render the report."""
    return render(
        "page.html",
        report=report,
        contents=contents,
        cards=cards(report),
        unmeasured=[(name, contents.number(there)) for name, here, there in contents.reported(report) if here is None],
        pictures={name: embed.from_file(path, CAPTIONS[name]) for name, path in report.pictures.items()},
        pixels="pixels" if report.params["data"]["image_size"] < _PIXEL_ART else "",
        bound=_bound_plots(report),
        classes=_classes_plot(report.shares),
        commands=reproduce.reproduce(report.params, report.defaults),
    )


def cards(report: Report) -> list[Card]:
    """The headline metrics, each with the values of real images and of published results."""
    found = []
    for section in (report.protocol["extractor"], "likelihood"):
        values = {key: contents.number(value) for key, value in report.metrics.get(section, {}).items()}
        for key, (name, description, labels) in _CARDS.items():
            if key in values:
                references = [
                    (values[other], label.format_map(report.protocol))
                    for other, label in labels.items()
                    if other in values
                ]
                references += _from_elsewhere(report, f"{section}.{key}")
                found.append(Card(name, values[key], description, references))
    return found


def _from_elsewhere(report: Report, metric: str) -> list[tuple[str, str]]:
    section = report.params["reported"]
    if not section or metric not in section["metrics"]:
        return []
    return [(contents.number(section["metrics"][metric]), section["source"])]


def _bound_plots(report: Report) -> list[Picture]:
    times = [point["t"] for point in report.bound]
    labels = {"bits_per_dim": "bits per dimension", "x_0_error": "mean squared error of x_0"}
    if not times:
        return []
    return [
        _plot(times, [point[key] for point in report.bound], "diffusion time t", label) for key, label in labels.items()
    ]


def _plot(x: Sequence[float], y: Sequence[float], x_label: str, y_label: str) -> Picture:
    first, last = (f"{contents.number(y[index])} at {x[index]:g}" for index in (0, -1))
    alt = f"{y_label[:1].upper()}{y_label[1:]} over {x_label}: from {first} to {last}"
    return plots.lines([Line(y_label, x, y)], x_label, y_label, alt)


def _classes_plot(shares: Sequence[Share]) -> Picture | None:
    """The shares of the classes in their order; of many classes, the 20 whose shares differ most."""
    if not shares:
        return None
    chosen = sorted(shares, key=lambda share: abs(share.samples - share.data), reverse=True)[:_CLASSES]
    shown = [share for share in shares if share in chosen]
    groups = {
        "training images": [100 * share.data for share in shown],
        "samples": [100 * share.samples for share in shown],
    }
    alt = f"Share of each class in training images and in samples, {len(shown)} of {len(shares)} classes"
    return plots.bars([share.name for share in shown], groups, "share of the images (%)", alt)
