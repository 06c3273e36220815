"""The parameters that differ, the best metrics, unique names, the selection of experiments."""

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


def test_a_digest_is_shortened_to_eight_characters() -> None:
    table = compare([tracked("x", {"data.digest": "0123456789abcdef" * 4}), tracked("y", {"data.digest": None})])
    assert table.params == {"data.digest": ["01234567", "null"]}


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


def test_all_equal_best_values_are_marked_and_missing_or_nan_values_never() -> None:
    cells = compare([tracked("x", fid=math.nan), tracked("y", fid=1.0), tracked("z", fid=1.0), tracked("w")]).metrics
    assert cells["classifier.fid"] == [("nan", False), ("1", True), ("1", True), ("-", False)]


def test_a_single_value_is_not_marked_as_best() -> None:
    assert not any(cell.best for cell in compare([tracked("x", fid=1.0), tracked("y")]).metrics["classifier.fid"])


def test_metrics_of_different_extractors_get_a_note_and_no_best_mark() -> None:
    same = compare([tracked("x", fid=1.0), tracked("y", fid=2.0), tracked("old", extractor="", fid=3.0)])
    other = compare([tracked("x", fid=1.0), tracked("y", fid=2.0), tracked("z", extractor="f", fid=3.0)])
    assert not same.notes
    assert other.notes[0].startswith("classifier.fid: measured with different extractors")
    assert [any(cell.best for cell in table.metrics["classifier.fid"]) for table in (same, other)] == [True, False]


def test_sorting_puts_the_best_value_first_and_missing_values_last() -> None:
    experiments = [tracked("x"), tracked("y", fid=2.0, **{"is": 5.0}), tracked("z", fid=1.0, **{"is": 4.0})]
    assert compare(experiments).names == ["x", "y", "z"]
    assert compare(experiments, ["classifier.fid"]).names == ["z", "y", "x"]
    assert compare(experiments, ["classifier.is", "classifier.fid"]).names == ["y", "z", "x"]


def test_default_metrics_are_fid_inception_score_and_bits_per_dim_of_all_extractors() -> None:
    inception = {"inception.fid": 1.0, "likelihood.bits_per_dim": 3.0, "loss": 1.0, "snapshot.fid": 1.0}
    table = compare([tracked("x", fid=1.0, kid=2.0, **{"is": 3.0}), Experiment("y", "", "", 0, {}, inception, "", "")])
    assert list(table.metrics) == ["classifier.fid", "inception.fid", "classifier.is", "likelihood.bits_per_dim"]


def test_equal_names_get_a_part_of_the_fingerprint_or_of_the_id() -> None:
    def run(name: str, fingerprint: str, id: str) -> Experiment:
        return Experiment(name, fingerprint * 64, "finished", 0.0, {}, {}, "", id * 32)

    assert compare([run("x", "a", "1"), run("x", "b", "2"), run("y", "c", "3")]).names == [
        "x aaaaaaaa",
        "x bbbbbbbb",
        "y",
    ]
    assert compare([run("x", "", "1")]).names == ["x"]
    assert compare([run("x", "a", "1"), run("x", "a", "2")]).names == ["x 11111111", "x 22222222"]
    named_like_another = [run("x", "a", "1"), run("x", "b", "2"), run("x aaaaaaaa", "c", "3")]
    assert compare(named_like_another).names == ["x 11111111", "x bbbbbbbb", "x aaaaaaaa cccccccc"]


def test_control_characters_in_names_are_replaced() -> None:
    assert compare([tracked("x\x1b[2J\ny")]).names == ["x?[2J?y"]


def test_experiments_are_selected_by_name_pattern_or_fingerprint() -> None:
    experiments = [tracked("eta-0"), tracked("eta-1"), tracked("base")]
    assert [one.name for one in select(experiments, [])] == ["eta-0", "eta-1", "base"]
    assert [one.name for one in select(experiments, ["base", "eta-1"])] == ["eta-1", "base"]
    assert [one.name for one in select(experiments, ["eta-*"])] == ["eta-0", "eta-1"]
    assert [one.name for one in select(experiments, ["baseff"])] == ["base"]


def test_a_name_that_looks_like_a_pattern_and_a_name_of_the_table_select_their_experiment() -> None:
    experiments = [tracked("lr[1]"), tracked("same", x=1.0), replace(tracked("same"), fingerprint="1" * 64)]
    assert [one.name for one in select(experiments, ["lr[1]"])] == ["lr[1]"]
    shown = compare(experiments).names[2]
    assert select(experiments, [shown]) == [experiments[2]]


def test_unknown_names_and_metrics_are_errors_that_list_the_known_ones() -> None:
    experiments = [tracked("x", fid=1.0)]
    with pytest.raises(UsageError, match="no tracked experiment is called y; there are x"):
        select(experiments, ["x", "y"])
    with pytest.raises(UsageError, match=r"--metric loss: no experiment has it; there are classifier\.fid$"):
        check_metrics(experiments, ["loss"])


@pytest.mark.parametrize("wrong", ["fid", "classifier.fd", "inception.fid"])
def test_the_error_of_an_unknown_metric_names_the_nearest_and_no_metric_of_the_system(wrong: str) -> None:
    measured = {"system/cpu": 1.0, "classifier.is": 1.0, "classifier.fid": 1.0}
    one = replace(tracked("x"), metrics=measured)
    with pytest.raises(UsageError) as error:
        check_metrics([one], [wrong])
    assert str(error.value) == (
        f"--metric {wrong}: no experiment has it; the nearest is classifier.fid; "
        f"there are classifier.fid, classifier.is"
    )
    check_metrics([one], ["system/cpu"])


def test_nothing_that_depends_on_a_useless_extractor_is_best() -> None:
    experiments = [tracked("x", fid=1.0, useless=1.0), tracked("y", fid=2.0), tracked("z", kid=1.0)]
    for one, bits in zip(experiments, (3.0, 4.0, 5.0), strict=True):
        one.metrics["likelihood.bits_per_dim"] = bits  # type: ignore[index]
    table = compare(experiments, ["classifier.fid", "likelihood.bits_per_dim"])
    assert not any(cell.best for cell in table.metrics["classifier.fid"])
    assert [cell.best for cell in table.metrics["likelihood.bits_per_dim"]] == [True, False, False]
    assert table.notes == ["classifier.fid: the extractor of x is useless, so the best is not marked"]
