"""Which parameters differ, which metric is best, which names stay apart."""

import math
from dataclasses import replace
from typing import Any

import pytest

from ddpm.errors import UsageError
from lab.pages.comparison import Experiment, check_metrics, compare, select


def tracked(name: str, params: dict[str, Any] | None = None, extractor: str = "e", **metrics: float) -> Experiment:
    """An experiment with metrics of the classifier."""
    measured = {f"classifier.{key}": value for key, value in metrics.items()}
    return Experiment(name, f"{name:f<64}", "finished", 0.0, params or {"a": 1}, measured, extractor, f"{name:i<32}")


def test_only_parameters_that_differ_are_shown_in_the_order_of_params_yaml() -> None:
    first = {"train.steps": 5, "sample.eta": 0.5, "data.seed": 0, "network.heads": 1}
    table = compare([tracked("x", first), tracked("y", first | {"train.steps": 6, "sample.eta": 1.0, "data.seed": 1})])
    assert list(table.params) == ["data.seed", "train.steps", "sample.eta"]
    assert table.params["sample.eta"] == ["0.5", "1.0"]


def test_a_list_differs_as_a_whole_and_equal_numbers_do_not() -> None:
    table = compare([tracked("x", {"l": [1, 2], "n": 1}), tracked("y", {"l": [1, 4], "n": 1.0})])
    assert table.params == {"l": ["[1, 2]", "[1, 4]"]}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "null"), (True, "true"), (1e-5, "1.0e-05"), ("ddim", "ddim"), ("null", "'null'"), ([0.9, 1], "[0.9, 1]")],
)
def test_values_are_shown_as_yaml_and_absent_ones_as_a_dash(value: Any, text: str) -> None:
    table = compare([tracked("x", {"a": 1, "b": value}), tracked("y", {"a": 1})])
    assert table.params == {"b": [text, "-"]}


def test_an_experiment_without_parameters_makes_none_differ() -> None:
    failed = Experiment("z", "", "failed", 0.0, {}, {}, "", "i")
    assert compare([failed, tracked("x"), tracked("y")]).params == {}
    assert compare([failed, tracked("x"), tracked("y", {"a": 2})]).params == {"a": ["-", "1", "2"]}


@pytest.mark.parametrize(
    ("key", "best"),
    [
        *[(key, "1*") for key in ("fid", "fid_matched", "kid", "class_distance")],
        *[(key, "3*") for key in ("is", "precision", "recall", "label_agreement")],
        *[(key, None) for key in ("fid_floor", "is_real", "is_std", "accuracy")],
    ],
)
def test_the_best_is_the_smallest_or_largest_as_the_metric_is(key: str, best: str | None) -> None:
    experiments = [tracked(str(value), {"a": value}, **{key: value}) for value in (2.0, 1.0, 3.0)]
    cells = compare(experiments, [f"classifier.{key}"]).metrics[f"classifier.{key}"]
    assert [f"{cell.text}*" for cell in cells if cell.best] == ([best] if best else [])


def test_all_that_share_the_best_are_marked_and_numbers_that_are_none_never() -> None:
    cells = compare([tracked("x", fid=1.0), tracked("y", fid=1.0), tracked("z"), tracked("w", fid=math.nan)]).metrics
    assert [(cell.text, cell.best) for cell in cells["classifier.fid"]] == [
        ("1", True),
        ("1", True),
        ("-", False),
        ("nan", False),
    ]


def test_what_stands_alone_is_not_the_best() -> None:
    assert not any(cell.best for cell in compare([tracked("x", fid=1.0), tracked("y")]).metrics["classifier.fid"])


def test_metrics_of_different_extractors_are_said_not_to_compare_and_have_no_best() -> None:
    same = compare([tracked("x", fid=1.0), tracked("y", fid=2.0), tracked("old", extractor="", fid=3.0)])
    other = compare([tracked("x", fid=1.0), tracked("y", fid=2.0), tracked("z", extractor="f", fid=3.0)])
    assert not same.notes
    assert other.notes[0].startswith("classifier.fid: measured under different feature networks")
    assert [any(cell.best for cell in table.metrics["classifier.fid"]) for table in (same, other)] == [True, False]


def test_sorting_puts_the_best_first_and_what_was_not_measured_last() -> None:
    experiments = [tracked("x"), tracked("y", fid=2.0, **{"is": 5.0}), tracked("z", fid=1.0, **{"is": 4.0})]
    assert compare(experiments).names == ["x", "y", "z"]
    assert compare(experiments, ["classifier.fid"]).names == ["z", "y", "x"]
    assert compare(experiments, ["classifier.is", "classifier.fid"]).names == ["y", "z", "x"]


def test_the_usual_metrics_are_fid_inception_score_and_likelihood_of_all_extractors() -> None:
    inception = {"inception.fid": 1.0, "likelihood.bits_per_dim": 3.0, "loss": 1.0, "snapshot.fid": 1.0}
    table = compare([tracked("x", fid=1.0, kid=2.0, **{"is": 3.0}), Experiment("y", "", "", 0, {}, inception, "", "")])
    assert list(table.metrics) == ["classifier.fid", "inception.fid", "classifier.is", "likelihood.bits_per_dim"]


def test_equal_names_are_told_apart_by_fingerprint_then_by_id() -> None:
    def run(name: str, fingerprint: str, id: str) -> Experiment:
        return Experiment(name, fingerprint * 64, "finished", 0.0, {}, {}, "", id * 32)

    assert compare([run("x", "a", "1"), run("x", "b", "2"), run("y", "c", "3")]).names == [
        "x aaaaaaaa",
        "x bbbbbbbb",
        "y",
    ]
    assert compare([run("x", "a", "1"), run("x", "a", "2")]).names == ["x 11111111", "x 22222222"]


def test_a_name_cannot_move_the_cursor() -> None:
    assert compare([tracked("x\x1b[2J\ny")]).names == ["x?[2J?y"]


def test_experiments_are_chosen_by_name_pattern_or_fingerprint() -> None:
    experiments = [tracked("eta-0"), tracked("eta-1"), tracked("base")]
    assert [one.name for one in select(experiments, [])] == ["eta-0", "eta-1", "base"]
    assert [one.name for one in select(experiments, ["base", "eta-1"])] == ["eta-1", "base"]
    assert [one.name for one in select(experiments, ["eta-*"])] == ["eta-0", "eta-1"]
    assert [one.name for one in select(experiments, ["baseff"])] == ["base"]


def test_a_name_may_look_like_a_pattern_and_be_the_one_that_the_table_shows() -> None:
    experiments = [tracked("lr[1]"), tracked("same", x=1.0), replace(tracked("same"), fingerprint="1" * 64)]
    assert [one.name for one in select(experiments, ["lr[1]"])] == ["lr[1]"]
    shown = compare(experiments).names[2]
    assert select(experiments, [shown]) == [experiments[2]]


def test_what_no_experiment_is_called_or_has_is_named_with_what_there_is() -> None:
    experiments = [tracked("x", fid=1.0)]
    with pytest.raises(UsageError, match="no tracked experiment is called y; there are x"):
        select(experiments, ["x", "y"])
    with pytest.raises(UsageError, match=r"--metric fid: no experiment has it; there are classifier\.fid"):
        check_metrics(experiments, ["fid"])
