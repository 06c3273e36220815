"""Print the paper's Table 2 in miniature as Markdown, from the experiments of recipes/table2/queue.

Run as `python -m docs.table2`.
"""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean, stdev

from docs.records import Experiment, experiments

SEEDS = 3
ROWS = [  # prediction, loss, variance, in the paper's order
    ("mu", "vlb", "learned"),
    ("mu", "vlb", "fixed"),
    ("mu", "simple", "fixed"),
    ("eps", "vlb", "learned"),
    ("eps", "vlb", "fixed"),
    ("eps", "simple", "fixed"),
]
_MEASURES = [("classifier", "fid"), ("classifier", "is"), ("likelihood", "bits_per_dim")]


def table(found: Sequence[Experiment]) -> str:
    """Return means and standard deviations over seeds; `runs` excludes runs that diverge, which have no metrics."""
    by_row = defaultdict(list)
    for experiment in found:
        diffusion, train = experiment.params["diffusion"], experiment.params["train"]
        by_row[diffusion["prediction"], train["loss"], diffusion["variance"]].append(experiment.metrics)
    lines = [
        "| prediction | loss | variance | FID | IS | bits/dim | runs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        cells = [_cell([values[part][key] for values in by_row[row]]) for part, key in _MEASURES]
        lines.append(f"| {' | '.join([*row, *cells])} | {len(by_row[row])} of {SEEDS} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


if __name__ == "__main__":
    print(table(experiments("table2-")))
