"""Measure FID and Inception Score of each sampler over the number of steps, for the model that the pipeline trained.

Run as `python -m docs.steps` after `dvc repro`. The script writes docs/steps.csv and docs/steps.png, and prints the
table for docs/results.md. The metrics use the pipeline's extractor and reference features.
"""

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from ddpm.evaluation.judge import Judge
from ddpm.network import modelfile
from ddpm.sampling import blocks
from ddpm.sampling.options import Options, settings

FOLDER = Path(__file__).parent
COUNT = 256  # samples per cell; at 1000 steps they take minutes
STEPS = (5, 10, 20, 50, 100, 1000)
SAMPLERS = {  # label to options, colour and marker
    "ancestral": (Options("ancestral"), "#0072B2", "o"),
    "DDIM, eta 0": (Options("ddim", eta=0.0), "#D55E00", "s"),
    "DPM-Solver++": (Options("dpm_solver"), "#009E73", "^"),
}


def measure(
    cell: tuple[str, int], model_file: Path, extractor: Path, reference: Path, count: int = COUNT
) -> dict[str, float | str]:
    """Measure FID and Inception Score of one sampler for one number of steps; use a single thread."""
    torch.set_num_threads(1)
    sampler, steps = cell
    model = modelfile.load(model_file)
    options = SAMPLERS[sampler][0]
    chosen = settings(model.description, Options(options.sampler, count, steps=steps, eta=options.eta))
    judge = Judge.load(extractor, reference, seed=0, device=torch.device("cpu"))
    metrics = judge.measure(blocks.draw(model, chosen))[1].metrics
    return {"sampler": sampler, "steps": steps} | {key: metrics[key] for key in ("fid", "is", "fid_floor", "is_real")}


def table(points: pd.DataFrame) -> str:
    """Return a Markdown table of FID and Inception Score: one row per number of steps, one column per sampler."""
    head = ["steps", *[f"{name}: FID" for name in SAMPLERS], *[f"{name}: IS" for name in SAMPLERS]]
    by_cell = points.set_index(["sampler", "steps"])
    rows = [
        [str(steps), *[f"{by_cell.loc[(name, steps), key]:.2f}" for key in ("fid", "is") for name in SAMPLERS]]
        for steps in sorted(points["steps"].unique())
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def draw(points: pd.DataFrame, path: Path) -> None:
    """Plot FID and Inception Score over the steps, one line per sampler, and the values of real images."""
    with mpl.rc_context(mpl.rcParamsDefault):
        figure = Figure(figsize=(10, 4.2), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        for axes, key, real, label in zip(
            figure.subplots(1, 2), ("fid", "is"), ("fid_floor", "is_real"), ("FID", "Inception Score"), strict=True
        ):
            for name, (_, colour, marker) in SAMPLERS.items():
                line = points[points["sampler"] == name].sort_values("steps")
                axes.plot(line["steps"], line[key], color=colour, marker=marker, linewidth=1.6, label=name)
            axes.axhline(points[real].iloc[0], color="#666666", linestyle=":", label="real images")
            axes.set_xscale("log")
            axes.set_xticks(STEPS, [str(steps) for steps in STEPS])
            axes.set_yscale("log" if key == "fid" else "linear")
            axes.set_xlabel("steps (network evaluations per image)")
            axes.set_ylabel(label)
            axes.grid(True, color="#dddddd", linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False)
        figure.savefig(path, metadata={"Software": None})


def main(folder: Path = Path()) -> None:
    """Measure every cell, the longest first, with one process per processor."""
    files = [folder / f"{name}.safetensors" for name in ("models/model", "models/extractor", "data/reference")]
    cells: Sequence[tuple[str, int]] = list(itertools.product(SAMPLERS, STEPS))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        waiting = [pool.submit(measure, cell, *files) for cell in sorted(cells, key=lambda cell: -cell[1])]
        found = [future.result() for future in tqdm(waiting, desc="steps", unit="cell")]
    points = pd.DataFrame(found).sort_values(["sampler", "steps"])
    points.to_csv(FOLDER / "steps.csv", index=False)
    draw(points, FOLDER / "steps.png")
    print(table(points))


if __name__ == "__main__":
    main()
