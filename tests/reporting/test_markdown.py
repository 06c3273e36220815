"""The report page."""

from dataclasses import replace
from typing import Any

import pytest

from ddpm.reporting import markdown
from ddpm.reporting.markdown import Report, flatten, metrics_table, page

PROTOCOL: dict[str, Any] = {
    "extractor": "classifier",
    "matched": 270,
    "is_splits": 10,
    "is_real_images": 1500,
    "data": "digits",
    "sample": {"steps": 50, "eta": 0.0},
    "warnings": [],
}
METRICS: dict[str, Any] = {
    "classifier": {"fid": 1.93557, "fid_floor": 0.28154, "is": 5.54, "is_real": 7.366, "unheard_of": 3.0},
    "neighbours": {"smallest": 20.5437, "images": 1000},
    "protocol": PROTOCOL,
}
DEFAULTS: dict[str, Any] = {"data": {"source": "digits", "path": None}, "train": {"steps": 1500, "betas": [0.9, 0.999]}}
REPORT = Report(
    METRICS,
    [{"step": 50, "loss": 0.73832}, {"step": 1500, "loss": 0.080841}],
    DEFAULTS,
    DEFAULTS,
    {"Samples": "samples.png"},
)


def with_data(**changed: Any) -> Report:
    return replace(REPORT, params={**DEFAULTS, "data": {**DEFAULTS["data"], **changed}})


def rows(text: str, key: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| `{key}` |")]


def test_metrics_stand_beside_their_floor_with_the_numbers_of_images() -> None:
    lines = metrics_table(METRICS).splitlines()
    assert lines[0] == "| metric | value | what it is |"
    assert lines[2].startswith("| `classifier.fid` | 1.936 |")
    assert lines[3] == "| `classifier.fid_floor` | 0.2815 | 270 test images to training images: the floor |"
    assert lines[5] == "| `classifier.is_real` | 7.366 | Inception Score of 1500 training images |"
    assert len(lines) == 6  # heading, rule, and what was measured and is known


def test_the_page_shows_metrics_neighbours_pictures_and_protocol() -> None:
    text = page(REPORT)
    assert metrics_table(METRICS) in text
    assert rows(text, "neighbours.smallest") == ["| `neighbours.smallest` | 20.54 |"]
    assert "![Samples](samples.png)\n\n*Samples*" in text
    assert rows(text, "sample.steps") == ["| `sample.steps` | 50 |"]
    assert "`warnings`" not in text


def test_the_extractor_is_named_so_that_distances_are_not_mistaken() -> None:
    inception = {"inception": {"fid": 3.17}, "protocol": {**PROTOCOL, "extractor": "inception"}}
    assert "The extractor is a classifier trained on these very images." in page(REPORT)
    text = page(replace(REPORT, metrics=inception))
    assert "The extractor is torch-fidelity's InceptionV3." in text
    assert rows(text, "inception.fid")


def test_training_is_told_by_its_first_and_last_point() -> None:
    assert "1500 steps; the loss fell from 0.7383 to 0.08084 (" in page(REPORT)


def test_the_bound_is_shown_with_its_parts_and_its_number_of_images() -> None:
    bound = {"bits_per_dim": 3.75123, "rate": 1.78, "distortion": 1.97, "prior": 0.001, "images": 64}
    text = page(replace(REPORT, metrics={**METRICS, "likelihood": bound}))
    assert rows(text, "likelihood.bits_per_dim") == [
        "| `likelihood.bits_per_dim` | 3.751 | the variational bound of 64 test images |"
    ]
    assert rows(text, "likelihood.rate")[0].startswith("| `likelihood.rate` | 1.78 |")
    assert rows(text, "likelihood.distortion")[0].startswith("| `likelihood.distortion` | 1.97 |")
    assert "likelihood" not in page(REPORT)


def test_the_best_snapshot_stands_beside_the_final_model() -> None:
    text = page(replace(REPORT, metrics={**METRICS, "snapshots": {"best_fid": 1.25, "best_step": 900.0}}))
    assert "that of step 900 has the smallest FID, 1.25; the final model's is 1.936." in text
    assert "snapshots" not in page(REPORT)


def test_a_model_that_was_not_trained_here_is_said_to_be_so() -> None:
    text = page(replace(REPORT, points=[]))
    assert "The model was not trained here (`train.steps: 0`)." in text
    assert "the loss fell" not in text


def test_unchanged_parameters_are_said_in_one_line_and_shown_in_full() -> None:
    text = page(REPORT)
    assert "All are those of `recipes/default.yaml`." in text
    assert "```yaml\ndata:\n  source: digits\n" in text


def test_changed_parameters_are_listed_beside_the_defaults_and_no_others() -> None:
    params = {**DEFAULTS, "train": {"steps": 3, "betas": [0.5, 0.999], "warmup": 0}}
    text = page(replace(REPORT, params=params))
    assert rows(text, "train.steps") == ["| `train.steps` | 3 | 1500 |"]
    assert rows(text, "train.betas") == ["| `train.betas` | [0.5, 0.999] | [0.9, 0.999] |"]
    assert rows(text, "train.warmup") == ["| `train.warmup` | 0 | absent |"]
    assert not rows(text, "data.source")


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("a|b", r"a\|b"),
        ("<script>", "&lt;script&gt;"),
        ("a\nb\r\nc\rd", "a b c d"),
        ("`rm`", r"\`rm\`"),
        ("back\\slash", r"back\\slash"),
        ("a\\|b", r"a\\\|b"),
        ("*bold* _it_", r"\*bold\* \_it\_"),
        ("[x](http://y)", r"[x]\(http://y)"),
        ("&lt;", "&amp;lt;"),
    ],
)
def test_names_from_the_users_data_stay_in_their_cell_as_they_are(name: str, cell: str) -> None:
    text = page(with_data(path=name))
    assert rows(text, "data.path") == [f"| `data.path` | {cell} | None |"]
    protocol = page(replace(REPORT, metrics={**METRICS, "protocol": {**PROTOCOL, "data": name}}))
    assert rows(protocol, "data") == [f"| `data` | {cell} |"]


def test_no_name_ends_the_block_of_parameters() -> None:
    text = page(with_data(path="x\n```\n# Not a heading\n```"))
    block = text[text.index("```yaml\n") + 8 :]
    fences = [line for line in block.splitlines() if line.startswith("```")]
    headings = [line for line in block.splitlines() if line.startswith("#")]
    assert fences == ["```"]
    assert headings == ["## Protocol"]


def test_warnings_come_before_everything_else() -> None:
    text = page(replace(REPORT, metrics={**METRICS, "protocol": {**PROTOCOL, "warnings": ["few images"]}}))
    assert text.startswith("# Report\n\n> **Warning:** few images.\n\n![Samples]")
    assert "Warning" not in page(REPORT)


def test_flatten_joins_keys_with_dots_and_keeps_lists_whole() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": None}) == {
        "a.b.c": 1,
        "a.d": [1, {"e": 2}],
        "f": None,
    }


def test_every_described_metric_is_shown() -> None:
    metrics = {"classifier": dict.fromkeys(markdown._DESCRIPTIONS, 1.0), "protocol": PROTOCOL}
    assert len(metrics_table(metrics).splitlines()) == 2 + len(markdown._DESCRIPTIONS)
