"""The report as one self-contained HTML page, reports/index.html."""

from collections.abc import Sequence

from ddpm.tables import Share
from lab.pages import contents, embed, plots, reproduce
from lab.pages.contents import CAPTIONS, NOT_MEASURED, Report, number
from lab.pages.embed import Picture
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
        pictures={name: embed.from_file(path, CAPTIONS[name]) for name, path in report.pictures.items()},
        pixels="pixels" if report.params["data"]["image_size"] < _PIXEL_ART else "",
        bound=[_bound_plot(report, key) for key in _BOUND] if report.bound else [],
        classes=_classes_plot(report.shares) if report.shares else None,
        commands=reproduce.reproduce(report.params, report.defaults),
    )


def _bound_plot(report: Report, key: str) -> Picture:
    curve, label = [(point["t"], point[key]) for point in report.bound], _BOUND[key]
    first, last = (f"{number(value)} at {t:g}" for t, value in (curve[0], curve[-1]))
    alt = f"{label.capitalize()} over diffusion time t: from {first} to {last}"
    return plots.lines({label: curve}, "diffusion time t", label, alt)


def _classes_plot(shares: Sequence[Share]) -> Picture:
    """The shares of the classes in their order; of many classes, the 20 whose shares differ most."""
    chosen = sorted(shares, key=lambda share: abs(share.samples - share.data), reverse=True)[:_CLASSES]
    shown = [share for share in shares if share in chosen]
    groups = {
        "training images": [100 * share.data for share in shown],
        "samples": [100 * share.samples for share in shown],
    }
    alt = f"Share of each class in training images and in samples, {len(shown)} of {len(shares)} classes"
    return plots.bars([share.name for share in shown], groups, "share of the images (%)", alt)
