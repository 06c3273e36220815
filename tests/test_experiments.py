"""The experiments behind docs/results.md: what is queued is usable, and the tables show what came of it."""

import itertools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from ddpm import params
from ddpm.params import Params
from docs import steps, table2
from docs.records import Experiment, experiments
from tests.imports import ROOT
from tests.pipeline.project import environment


def queued(name: str, folder: Path) -> list[Params]:
    """What recipes/NAME/queue asks of `dvc exp run --queue`, with every choice as an experiment of its own."""
    (folder / "dvc").write_text(f'#!/bin/sh\nprintf "%s\\t" "$@" >> "{folder}/calls"; echo >> "{folder}/calls"\n')
    (folder / "dvc").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([ROOT / "recipes" / name / "queue"], env=os.environ | {"PATH": path}, check=True)
    found = []
    for call in (folder / "calls").read_text().splitlines():
        assert call.startswith(f"exp\trun\t--queue\t--name\t{name}-")
        changes = [change.partition("=")[::2] for change in re.findall(r"-S\t([^\t]+)", call)]
        alternatives = [value[7:-1].split(",") if value.startswith("choice(") else [value] for _, value in changes]
        for values in itertools.product(*alternatives):
            whole = yaml.safe_load((ROOT / "recipes/default.yaml").read_text())
            for (key, _), value in zip(changes, values, strict=True):
                section, inner = key.split(".")
                assert inner in whole[section]
                whole[section][inner] = yaml.safe_load(value)
            found.append(params.check(whole))
    return found


def test_every_row_of_table_2_is_queued_with_three_seeds_and_the_whole_chain(tmp_path: Path) -> None:
    found = queued("table2", tmp_path)
    rows = [(p.diffusion.prediction, p.train.loss, p.diffusion.variance, p.train.seed) for p in found]
    assert sorted(rows) == sorted((*row, seed) for row in table2.ROWS for seed in range(table2.SEEDS))
    assert all(p.sample.steps == p.diffusion.timesteps for p in found)


def experiment(prediction: str, loss: str, variance: str, fid: float, bits: float) -> Experiment:
    settings = {"diffusion": {"prediction": prediction, "variance": variance}, "train": {"loss": loss}}
    return Experiment("x", settings, {"classifier": {"fid": fid, "is": 9}, "likelihood": {"bits_per_dim": bits}})


def test_cells_are_means_and_deviations_over_the_seeds_that_came_through() -> None:
    found = [experiment("eps", "simple", "fixed", seed + 1, 3.5) for seed in range(3)]
    lines = table2.table([*found, experiment("mu", "vlb", "learned", 7.125, 4)]).splitlines()
    assert lines[-1] == "| eps | simple | fixed | 2.00 ± 1.00 | 9.00 ± 0.00 | 3.50 ± 0.00 | 3 of 3 |"
    assert lines[2] == "| mu | vlb | learned | 7.12 | 9.00 | 4.00 | 1 of 3 |"
    assert lines[3] == "| mu | vlb | fixed | - | - | - | 0 of 3 |"
    assert len(lines) == 2 + 6


def test_samplers_stand_beside_each_other_at_equal_steps(tmp_path: Path) -> None:
    points = pd.DataFrame(
        {"sampler": name, "steps": count, "fid": count / 10 + place, "is": 9 - place, "fid_floor": 0.5, "is_real": 9.5}
        for place, name in enumerate(steps.SAMPLERS)
        for count in (50, 5)
    )
    assert steps.table(points).splitlines()[2:] == [
        "| 5 | 0.50 | 1.50 | 2.50 | 9.00 | 8.00 | 7.00 |",
        "| 50 | 5.00 | 6.00 | 7.00 | 9.00 | 8.00 | 7.00 |",
    ]
    steps.draw(points, tmp_path / "steps.png")
    assert (tmp_path / "steps.png").stat().st_size > 10_000


def test_the_committed_table_of_steps_is_that_of_its_file() -> None:
    assert steps.table(pd.read_csv(ROOT / "docs/steps.csv")) in (ROOT / "docs/results.md").read_text()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """With two experiments, as DVC keeps them."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *arguments], env=environment(), check=True)

    git("init", "-q")
    (tmp_path / "reports").mkdir()
    for name, fid in (("table2-x-1", 1.5), ("other", 2.5)):
        (tmp_path / "params.yaml").write_text(f"train: {{seed: {fid}}}\n")
        (tmp_path / "reports/metrics.json").write_text(json.dumps({"fid": fid}))
        git("add", "-A")
        git("commit", "-qm", name)
        git("update-ref", f"refs/exps/ab/{'c' * 38}/{name}", "HEAD")
    return tmp_path


def test_records_are_those_of_the_named_experiments_alone(repository: Path) -> None:
    expected: dict[str, Any] = {"params": {"train": {"seed": 1.5}}, "metrics": {"fid": 1.5}}
    assert experiments("table2-", repository) == [Experiment("table2-x-1", **expected)]
