"""The report as one self-contained HTML page, reports/index.html."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ddpm.tables import Share
from lab.pages import contents, embed, plots, reproduce
from lab.pages.contents import CAPTIONS, NOT_MEASURED, Report, number
from lab.pages.templates import render

_PIXEL_ART = 48  # pixels; smaller images are enlarged without smoothing
_CLASSES = 20
_BOUND = {"bits_per_dim": "bits per dimension", "x_0_error": "mean squared error of x_0"}


def page(report: Report) -> str:
    """Render the report."""
    return render(
        "page.html",
        report=report,
        contents=contents,
        changes=contents.changes(report),
        unmeasured=[f"{name} {there}" for name, here, there in contents.reported(report) if here == NOT_MEASURED],
        pictures={
            name: embed.from_file(path, CAPTIONS[name]) for name, path in report.pictures.items() if name != "loss"
        },
        pixels="pixels" if report.params["data"]["image_size"] < _PIXEL_ART else "",
        training=_training_plots(report) if report.points else [],
        bound=[_bound_plot(report, key) for key in _BOUND] if report.bound else [],
        classes=_classes_plot(report.shares) if report.shares else None,
        class_table=contents.class_table(report),
        commands=reproduce.reproduce(report.params, report.defaults),
    )


def _training_plots(report: Report) -> list[Markup]:
    """The training loss between the losses of the final weights, the gradient norm, and the FID of snapshots if any."""
    steps = [point["step"] for point in report.points]
    final = {
        f"{name}: {number(value)}": [(steps[0], value), (steps[-1], value)]
        for name, value in contents.final_losses(report.metrics).items()
    }
    curves = {"while training": _curve(report.points, "loss"), **final}
    found = [
        (curves, "loss", "Loss over optimizer steps" + "".join(f", {name}" for name in final)),
        ({"": _curve(report.points, "gradient_norm")}, "gradient norm", "Gradient norm over optimizer steps"),
    ]
    if report.snapshots:
        found.append(
            ({"": _curve(report.snapshots, "fid")}, "FID of snapshots", "FID of snapshots over optimizer steps")
        )
    return [plots.lines(drawn, "optimizer step", label, alt) for drawn, label, alt in found]


def _curve(points: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    return [(point["step"], point[key]) for point in points]


def _bound_plot(report: Report, key: str) -> Markup:
    curve, label = [(point["t"], point[key]) for point in report.bound], _BOUND[key]
    first, last = (f"{number(value)} at {t:g}" for t, value in (curve[0], curve[-1]))
    alt = f"{label.capitalize()} over diffusion time t: from {first} to {last}"
    return plots.lines({label: curve}, "diffusion time t", label, alt)


def _classes_plot(shares: Sequence[Share]) -> Markup:
    """The shares of the classes in their order; of many classes, the 20 whose shares differ most."""
    chosen = sorted(shares, key=lambda share: abs(share.samples - share.data), reverse=True)[:_CLASSES]
    shown = [share for share in shares if share in chosen]
    groups = {
        "training images": [100 * share.data for share in shown],
        "samples": [100 * share.samples for share in shown],
    }
    alt = f"Share of each class in training images and in samples, {len(shown)} of {len(shares)} classes"
    return plots.bars([share.name for share in shown], groups, "share of the images (%)", alt)
