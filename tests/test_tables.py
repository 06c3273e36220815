"""The CSV files that stages exchange."""

from pathlib import Path

import numpy as np
import pytest

from ddpm import tables
from ddpm.tables import Share

COLUMNS = ("step", "loss", "learning_rate")


def test_points_come_back_to_the_last_bit(tmp_path: Path) -> None:
    """MLflow takes a point that differs in its last bit for another one."""
    values = np.random.default_rng(0).lognormal(0, 8, (500, 2)).tolist()
    points = [{"step": 50.0 * n, "loss": a, "learning_rate": b} for n, (a, b) in enumerate(values, 1)]
    tables.write_points(tmp_path / "train.csv", points, COLUMNS)
    assert tables.read_points(tmp_path / "train.csv") == points


def test_columns_have_the_given_order_and_steps_are_whole(tmp_path: Path) -> None:
    tables.write_points(tmp_path / "train.csv", [{"learning_rate": 0.5, "loss": 0.25, "step": 7.0}], COLUMNS)
    assert (tmp_path / "train.csv").read_bytes() == b"step,loss,learning_rate\n7,0.25,0.5\n"


def test_no_points_are_a_heading_and_come_back_as_none(tmp_path: Path) -> None:
    tables.write_points(tmp_path / "train.csv", [], COLUMNS)
    assert (tmp_path / "train.csv").read_text() == "step,loss,learning_rate\n"
    assert tables.read_points(tmp_path / "train.csv") == []


def test_the_file_replaces_the_one_before_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "train.csv"
    for loss in (1.0, 2.0):
        tables.write_points(path, [{"step": 1, "loss": loss, "learning_rate": 0.1}], COLUMNS)
    assert tables.read_points(path)[0]["loss"] == 2.0
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "names", [[], ["0", "1"], ["NA", "null", "", "a,b", '"', "<script>", "1e5", "漢", "two\nlines"]]
)
def test_shares_that_are_read_are_those_that_were_written(names: list[str], tmp_path: Path) -> None:
    written = [Share(name, 0.1 * index, 1 / (index + 3)) for index, name in enumerate(names)]
    tables.write_shares(tmp_path / "classes.csv", written)
    assert tables.read_shares(tmp_path / "classes.csv") == written


def test_shares_of_no_classes_are_a_header(tmp_path: Path) -> None:
    tables.write_shares(tmp_path / "classes.csv", [])
    assert (tmp_path / "classes.csv").read_text() == "class,data,samples\n"
