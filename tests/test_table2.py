"""The paper's Table 2 in miniature: what is queued is usable, and the table shows what came of it."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm import params
from docs import table2
from tests.imports import ROOT
from tests.pipeline.project import environment


def metrics(fid: float, score: float, bits: float) -> dict[str, Any]:
    return {"classifier": {"fid": fid, "is": score}, "likelihood": {"bits_per_dim": bits}}


@pytest.fixture
def queued(tmp_path: Path) -> list[list[str]]:
    """The arguments of every `dvc` that recipes/table2/queue calls."""
    (tmp_path / "dvc").write_text(f'#!/bin/sh\nprintf "%s\\t" "$@" >> "{tmp_path}/calls"; echo >> "{tmp_path}/calls"\n')
    (tmp_path / "dvc").chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([ROOT / "recipes/table2/queue"], env=os.environ | {"PATH": path}, check=True)
    return [line.split("\t")[:-1] for line in (tmp_path / "calls").read_text().splitlines()]


def test_every_row_is_queued_with_three_seeds_and_usable(queued: list[list[str]]) -> None:
    rows = set()
    for call in queued:
        assert call[:3] == ["exp", "run", "--queue"]
        values = yaml.safe_load((ROOT / "recipes/default.yaml").read_text())
        for change in re.findall(r"-S\t(\S+)", "\t".join(call)):
            key, _, value = change.partition("=")
            section, name = key.split(".")
            assert name in values[section]
            values[section][name] = yaml.safe_load(value)
        checked = params.check(values)
        diffusion, train = checked.diffusion, checked.train
        rows.add(name := f"table2-{diffusion.prediction}-{train.loss}-{diffusion.variance}-{train.seed}")
        assert call[call.index("--name") + 1] == name
        assert checked.sample.steps == diffusion.timesteps
    assert rows == {"table2-" + "-".join(row) + f"-{seed}" for row in table2._ROWS for seed in range(table2.SEEDS)}
    assert len(queued) == len(rows)


def test_cells_are_means_and_deviations_over_the_seeds_that_came_through() -> None:
    found = {f"table2-eps-simple-fixed-{seed}": metrics(seed + 1, 9, 3.5) for seed in range(3)}
    found["table2-mu-vlb-learned-2"] = metrics(7.125, 2, 4)
    lines = table2.table(found).splitlines()
    assert lines[-1] == "| eps | simple | fixed | 2.00 ± 1.00 | 9.00 ± 0.00 | 3.50 ± 0.00 | 3 of 3 |"
    assert lines[2] == "| mu | vlb | learned | 7.12 | 2.00 | 4.00 | 1 of 3 |"
    assert lines[3] == "| mu | vlb | fixed | - | - | - | 0 of 3 |"
    assert len(lines) == 2 + 6


def test_results_are_those_of_the_tables_experiments_alone(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, check=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "reports").mkdir()
    for name, fid in (("table2-eps-vlb-fixed-0", 1.5), ("other", 2.5)):
        (tmp_path / "reports/metrics.json").write_text(json.dumps(metrics(fid, 9, 3)))
        git("add", "-A")
        git("commit", "-qm", name)
        git("update-ref", f"refs/exps/ab/{'c' * 38}/{name}", "HEAD")
    assert table2.results(tmp_path) == {"table2-eps-vlb-fixed-0": metrics(1.5, 9, 3)}
