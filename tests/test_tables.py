"""The CSV files that stages exchange."""

from pathlib import Path

import numpy as np
import pytest

from ddpm import tables
from ddpm.tables import Share

COLUMNS = ("step", "loss", "learning_rate")


def test_points_are_read_exactly_as_written(tmp_path: Path) -> None:
    """MLflow stores a point that differs in its last bit as another point."""
    values = np.random.default_rng(0).lognormal(0, 8, (500, 2)).tolist()
    points = [{"step": 50.0 * n, "loss": a, "learning_rate": b} for n, (a, b) in enumerate(values, 1)]
    tables.write_points(tmp_path / "train.csv", points, COLUMNS)
    assert tables.read_points(tmp_path / "train.csv") == points


def test_columns_have_the_given_order_and_steps_are_integers(tmp_path: Path) -> None:
    tables.write_points(tmp_path / "train.csv", [{"learning_rate": 0.5, "loss": 0.25, "step": 7.0}], COLUMNS)
    assert (tmp_path / "train.csv").read_bytes() == b"step,loss,learning_rate\n7,0.25,0.5\n"


def test_no_points_are_written_as_a_header_and_read_as_an_empty_list(tmp_path: Path) -> None:
    tables.write_points(tmp_path / "train.csv", [], COLUMNS)
    assert (tmp_path / "train.csv").read_text() == "step,loss,learning_rate\n"
    assert tables.read_points(tmp_path / "train.csv") == []


def test_writing_replaces_the_file_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "train.csv"
    for loss in (1.0, 2.0):
        tables.write_points(path, [{"step": 1, "loss": loss, "learning_rate": 0.1}], COLUMNS)
    assert tables.read_points(path)[0]["loss"] == 2.0
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    "names", [[], ["0", "1"], ["NA", "null", "", "a,b", '"', "<script>", "1e5", "漢", "two\nlines"]]
)
def test_shares_are_read_as_written(names: list[str], tmp_path: Path) -> None:
    written = [Share(name, 0.1 * index, 1 / (index + 3)) for index, name in enumerate(names)]
    tables.write_shares(tmp_path / "classes.csv", written)
    assert tables.read_shares(tmp_path / "classes.csv") == written


def test_the_agreement_of_a_class_is_a_column_only_where_it_is_measured(tmp_path: Path) -> None:
    written = [Share("a,b", 0.5, 1.0, 0.75), Share("b", 0.5, 0.0, None)]
    tables.write_shares(tmp_path / "classes.csv", written)
    assert tables.read_shares(tmp_path / "classes.csv") == written
    assert (tmp_path / "classes.csv").read_text().splitlines()[1:] == ['"a,b",0.5,1.0,0.75', "b,0.5,0.0,"]
    tables.write_shares(tmp_path / "classes.csv", [Share("a", 0.5, 1.0)])
    assert (tmp_path / "classes.csv").read_text() == "class,data,samples\na,0.5,1.0\n"


def test_shares_of_no_classes_are_written_as_a_header(tmp_path: Path) -> None:
    tables.write_shares(tmp_path / "classes.csv", [])
    assert (tmp_path / "classes.csv").read_text() == "class,data,samples\n"
