"""Pictures: grids of images, animations, labelled strips of images, the loss curve. Equal inputs give equal bytes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

_SMALLEST = 48  # pixels; smaller images are enlarged
_STRIP = 82_000  # pixels of the images in a strip before small ones are enlarged: 80 images of 32 x 32
_GAP = 2  # pixels between images
_MILLISECONDS = 80  # per frame of an animation
_PADDING = 0.05  # inches around a table
_HOLD = 2000  # milliseconds of the last frame
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"  # Okabe and Ito, for colour-blind readers


def grid(images: Tensor, columns: int, pixels: int | None = None) -> "Image.Image":
    """Arrange images, uint8 (N, C, H, W) with C = 1 or 3, row by row.

    Small images are enlarged by an integer factor. Before that, if all images together have more than `pixels` pixels,
    they are reduced by an integer factor.
    """
    from PIL import Image

    scale = max(-(-_SMALLEST // max(images.shape[2:])), 1)
    images = images if pixels is None else _reduced(images, pixels)
    _, channels, height, width = images.shape
    rows = -(-len(images) // columns)
    tile_h, tile_w = height * scale + _GAP, width * scale + _GAP
    canvas = np.full((rows * tile_h + _GAP, columns * tile_w + _GAP, channels), 255, np.uint8)
    for index, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
        top, left = (index // columns) * tile_h + _GAP, (index % columns) * tile_w + _GAP
        enlarged = image.repeat(scale, 0).repeat(scale, 1)
        canvas[top : top + height * scale, left : left + width * scale] = enlarged
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def _reduced(images: Tensor, pixels: int) -> Tensor:
    count, _, height, width = images.shape
    factor = math.ceil(math.sqrt(count * height * width / pixels))
    return images if factor == 1 else F.avg_pool2d(images.float(), factor, ceil_mode=True).round().to(torch.uint8)


def picture(image: Tensor) -> "Image.Image":
    """Convert an image, uint8 (C, H, W) with C = 1 or 3, to a picture of the same size."""
    from PIL import Image

    values = image.permute(1, 2, 0).numpy()
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def save(picture: "Image.Image", path: Path) -> None:
    """Write a picture atomically, in the format of the path's suffix."""
    with replacing(path) as temporary:
        picture.save(temporary)


def animation(frames: Tensor, columns: int, path: Path, pixels: int | None = None) -> None:
    """Write grids of images, uint8 (F, N, C, H, W), as a GIF that repeats. The last frame stays for two seconds.

    If all frames together have more than `pixels` pixels, the images are reduced as by `grid`.
    """
    first, *others = [grid(images, columns, pixels and pixels // len(frames)) for images in frames]
    durations = [_MILLISECONDS] * len(others) + [_HOLD]
    with replacing(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=durations, loop=0)


def columns_of(count: int) -> int:
    """The columns of a grid of `count` images that is as wide as high, or a little wider."""
    return -int(-(count**0.5) // 1)


def strip(path: Path, title: str, columns: Sequence[str], rows: Sequence[tuple[str, Tensor]]) -> None:
    """Draw a labelled table of images. Each row is a label and images, uint8 (len(columns), C, H, W)."""
    table = grid(torch.cat([images for _, images in rows]), len(columns), _STRIP)
    width = max(table.width / 100, 6.0)
    with _figure(path, width + 0.7, width * table.height / table.width + 0.75) as figure:
        axes = figure.add_subplot()
        axes.imshow(np.asarray(table), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_xticks(_centres(table.width, len(columns)), columns)
        axes.set_yticks(_centres(table.height, len(rows)), [label for label, _ in rows])
        axes.xaxis.tick_top()
        axes.tick_params(length=0, labelsize=9)
        axes.spines[:].set_visible(False)
        axes.set_title(title, fontsize=11, loc="left")
        _trim(figure)


def loss_curve(
    points: Sequence[Mapping[str, float]],
    snapshots: Sequence[Mapping[str, float]],
    final: Mapping[str, float],
    path: Path,
) -> None:
    """Plot the loss, the gradient norm and the FID of the snapshots, if any, over optimizer steps on logarithmic axes.

    `points` are the rows of train.csv, `snapshots` those of snapshots.csv, `final` the losses of the final weights by
    their name in the legend.
    """
    panels = [(points, "loss", "loss", BLUE), (points, "gradient_norm", "gradient norm", ORANGE)]
    panels += [(snapshots, "fid", "FID of snapshots", GREEN)] if snapshots else []
    with _figure(path, 7, 4.2 if len(panels) == 2 else 5.6) as figure:
        subplots = figure.subplots(len(panels), 1, sharex=True, height_ratios=[2, 1, 1][: len(panels)])
        for axes, (records, key, label, colour) in zip(subplots, panels, strict=True):
            steps, values = ([point[name] for point in records] for name in ("step", key))
            axes.plot(steps, values, color=colour, linewidth=1.4, marker=".", markersize=3)
            if not values or max(values) > 0:  # all losses are 0 where the weight of the drawn times is 0
                axes.set_yscale("log")
            axes.set_ylabel(label)
            axes.grid(True, which="both", color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        for (name, value), style in zip(final.items(), ("--", ":"), strict=False):
            label = f"{name}: {value:.4g}"
            subplots[0].axhline(value, color=GREEN, linestyle=style, linewidth=1.4, label=label)
        if final:
            subplots[0].legend(frameon=False, title="final weights", loc="upper right")
        subplots[-1].set_xlabel("optimizer step")


@contextmanager
def _figure(path: Path, width: float, height: float) -> "Iterator[Figure]":
    """A figure of a size in inches, without the user's matplotlib settings, written to `path` on exit."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metadata: dict[str, Any] = {"Software": None}  # matplotlib would write its version
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, metadata=metadata)


def _trim(figure: "Figure") -> None:
    """Remove the empty band below a table whose long row labels make it narrower, and therefore lower, than planned."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # a second layout would move the table
    (axes,), (width, height) = figure.axes, figure.get_size_inches()
    box = axes.get_tightbbox()
    assert box is not None, "the table is drawn"
    if (band := box.y0 / figure.dpi - _PADDING) > 0:
        left, bottom, wide, high = axes.get_position().bounds
        figure.set_size_inches(width, height - band)
        scale = height / (height - band)
        axes.set_position((left, (bottom - band / height) * scale, wide, high * scale))


def _centres(extent: int, count: int) -> np.ndarray:
    """The centres of `count` equal parts of an axis of `extent` pixels."""
    return (np.arange(count) + 0.5) * extent / count
