"""FID and Inception Score against the number of steps, from the experiments of recipes/steps/queue.

`python -m docs.steps` prints the table for docs/results.md and draws docs/steps.png.
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from docs.records import Experiment, experiments

PATH = Path(__file__).with_suffix(".png")
SAMPLERS = {"ancestral": ("#0072B2", "o"), "ddim": ("#D55E00", "s"), "dpm_solver": ("#009E73", "^")}


def table(found: list[Experiment]) -> str:
    """One line for each number of steps: FID and Inception Score of every sampler."""
    cells = {
        (run.params["sample"]["sampler"], run.params["sample"]["steps"]): run.metrics["classifier"] for run in found
    }
    head = ["steps", *[f"{name} FID" for name in SAMPLERS], *[f"{name} IS" for name in SAMPLERS]]
    rows = [
        [str(steps)]
        + [f"{cells[name, steps]['fid']:.2f}" for name in SAMPLERS]
        + [f"{cells[name, steps]['is']:.2f}" for name in SAMPLERS]
        for steps in sorted({steps for _, steps in cells})
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def draw(found: list[Experiment], path: Path) -> None:
    """FID and Inception Score over steps, one line for each sampler, with what real images reach."""
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, key, floor, label in zip(
            figure.subplots(1, 2), ("fid", "is"), ("fid_floor", "is_real"), ("FID", "Inception Score"), strict=True
        ):
            for name, (colour, marker) in SAMPLERS.items():
                runs = [run for run in found if run.params["sample"]["sampler"] == name]
                points = sorted((run.params["sample"]["steps"], run.metrics["classifier"][key]) for run in runs)
                axes.plot(*zip(*points, strict=True), color=colour, marker=marker, linewidth=1.6, label=name)
            axes.axhline(found[0].metrics["classifier"][floor], color="#666666", linestyle=":", label="real images")
            axes.set_xscale("log")
            axes.set_yscale("log" if key == "fid" else "linear")
            axes.set_xlabel("steps (network evaluations per image)")
            axes.set_ylabel(label)
            axes.grid(True, which="both", color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    results = experiments("steps-")
    print(table(results))
    draw(results, PATH)
