"""Plot the remaining signal of each schedule to docs/schedules.png. Run as `python -m docs.schedules`."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ddpm.diffusion.schedule import alpha_bar
from ddpm.params import Gaussian

PATH = Path(__file__).with_suffix(".png")
STEPS = 1000
# The palette of Okabe and Ito is safe for colour-blind readers; dashes separate lines that are close together.
STYLES = {
    "linear": ("#000000", "-"),
    "quad": ("#E69F00", "-"),
    "const": ("#56B4E9", "-"),
    "warmup10": ("#009E73", "--"),
    "warmup50": ("#0072B2", "--"),
    "jsd": ("#D55E00", "-."),
    "cosine": ("#CC79A7", "-"),
    "sigmoid": ("#7A7A7A", ":"),
}


def settings(name: str) -> Gaussian:
    """Settings of a schedule, with the paper's betas if it has these parameters."""
    return Gaussian(
        process="gaussian",
        timesteps=STEPS,
        schedule=name,
        beta_start=None if name in ("const", "jsd", "cosine", "sigmoid") else 1e-4,
        beta_end=None if name in ("jsd", "cosine", "sigmoid") else 0.02,
        prediction="x_0",
        variance="fixed",
        value_range=[-1.0, 1.0],
    )


def draw(path: Path) -> None:
    """Plot alpha_bar, and the signal-to-noise ratio on a logarithmic axis, over t."""
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        for name, (colour, dashes) in STYLES.items():
            signal = alpha_bar(settings(name))
            left.plot(np.arange(STEPS + 1), signal, color=colour, linestyle=dashes, linewidth=1.7, label=name)
            positive = signal[1:] > 0  # jsd ends at 0
            snr = signal[1:][positive] / (1 - signal[1:][positive])
            right.plot(np.arange(1, STEPS + 1)[positive], snr, color=colour, linestyle=dashes, linewidth=1.7)
        left.set_ylabel(r"signal left, $\bar\alpha_t$")
        right.set_ylabel(r"signal-to-noise ratio, $\bar\alpha_t / (1 - \bar\alpha_t)$")
        right.set_yscale("log")
        right.set_ylim(3e-10, 1e5)
        for axes in (left, right):
            axes.set_xlabel("$t$")
            axes.grid(True, color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        left.legend(frameon=False)
        figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    draw(PATH)
