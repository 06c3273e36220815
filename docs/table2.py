"""The paper's Table 2 in miniature, as Markdown, from the experiments that recipes/table2/queue has queued.

python -m docs.table2
"""

import json
import re
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

ROOT = Path(__file__).parent.parent
SEEDS = 3
_NAME = re.compile(r"table2-(\w+)-(\w+)-(\w+)-\d+")  # prediction, loss, variance, seed
_ROWS = [(prediction, *row) for prediction in ("mu", "eps") for row in (
    ("vlb", "learned"), ("vlb", "fixed"), ("simple", "fixed")
)]  # fmt: skip  # in the paper's order
_MEASURES = [("classifier", "fid"), ("classifier", "is"), ("likelihood", "bits_per_dim")]


def results(root: Path) -> dict[str, Any]:
    """The metrics of every DVC experiment in the repository that belongs to the table, by its name."""
    refs = _git(root, "for-each-ref", "--format=%(refname)", "refs/exps").split()
    found = {ref.rpartition("/")[2]: ref for ref in refs}
    return {
        name: json.loads(_git(root, "show", f"{ref}:reports/metrics.json"))
        for name, ref in found.items()
        if _NAME.fullmatch(name)
    }


def table(metrics: Mapping[str, Any]) -> str:
    """Means and deviations over seeds; `runs` counts those that left metrics, for one that diverges leaves none."""
    by_row = defaultdict(list)
    for name, values in metrics.items():
        match = _NAME.fullmatch(name)
        assert match is not None
        by_row[match.groups()].append(values)
    lines = [
        "| prediction | loss | variance | FID | IS | bits/dim | runs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in _ROWS:
        cells = [_cell([values[part][key] for values in by_row[row]]) for part, key in _MEASURES]
        lines.append(f"| {' | '.join([*row, *cells])} | {len(by_row[row])} of {SEEDS} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "-"
    return f"{mean(values):.2f} ± {stdev(values):.2f}"


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    print(table(results(ROOT)))
