"""What `ddpm publish` and stage report print at their end."""

import json
from pathlib import Path

import pytest

from lab.commands import publish
from lab.experiment import identity
from lab.tracking.publish import Published
from tests.lab.tracking.repository import DIGEST, METRICS, PROTOCOL, params

ADDRESS = "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=ddpm"
RUN = Published("slow", ADDRESS)


@pytest.fixture(autouse=True)
def results(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with results; no experiment of DVC runs."""
    for name in ("DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (repository / "reports").mkdir()
    (repository / "reports/metrics.json").write_text(json.dumps(METRICS))
    (repository / "reports/protocol.json").write_text(json.dumps(PROTOCOL))
    return repository


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.err == ""
    empty, *printed = captured.out.splitlines()
    assert empty == ""
    return printed


def test_a_run_ends_with_its_numbers_the_report_mlflow_and_the_next_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish.conclude(params(), RUN)
    assert lines(capsys) == [
        "slow: 64 samples, measured with a classifier trained on these images",
        "  metrics  FID 1.25 (floor 0.5)",
        "  report   reports/index.html",
        f"  MLflow   `ddpm ui`, {ADDRESS}",
        "  next     dvc exp run -S sample.steps=25",
    ]


def test_a_server_is_named_without_ddpm_ui(capsys: pytest.CaptureFixture[str]) -> None:
    publish.conclude(params(uri="https://server"), Published("slow", "https://server/#/experiments/1/runs"))
    assert lines(capsys)[3] == "  MLflow   https://server/#/experiments/1/runs"


def test_a_run_that_mlflow_does_not_have_says_what_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    publish.conclude(params(), None)
    name, *_, tracked, _ = lines(capsys)
    assert name.startswith(f"{identity.title(identity.fingerprint(DIGEST))}: 64 samples")
    assert tracked == "  MLflow   not written; `ddpm publish` repeats it"


def test_the_next_command_after_an_experiment_is_the_comparison(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "slow")
    publish.conclude(params(), RUN)
    assert lines(capsys)[2:] == ["  report   reports/index.html", f"  MLflow   `ddpm ui`, {ADDRESS}",
                                 "  next     ddpm compare"]  # fmt: skip


def test_the_report_of_an_experiment_in_a_copy_is_where_dvc_puts_it(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "slow")
    monkeypatch.setattr("lab.experiment.dvcfile.ROOT", results.parent)
    publish.conclude(params(), RUN)
    assert lines(capsys)[2] == "  report   reports/index.html, after `dvc exp apply slow`"


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_summary_that_cannot_be_printed_is_one_warning(
    content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = Path("reports/metrics.json")
    metrics.unlink()
    if content:
        metrics.write_text(content)
    publish.conclude(params(), RUN)
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("the summary of the run could not be printed (")
