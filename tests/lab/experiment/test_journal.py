"""The durations of stages that have run, and the machine of the training."""

from pathlib import Path

import pytest

from lab.experiment import dvcfile, journal, state


def ran(stage: str, seconds: float = 1.0) -> None:
    """Record a run of the stage on the files as they are."""
    journal.record(stage, dvcfile.observed(stage), seconds)


def edit(old: str, new: str) -> None:
    path = Path("params.yaml")
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture(autouse=True)
def within(repository: Path) -> Path:
    return repository


def test_the_newest_run_of_a_stage_gives_its_seconds() -> None:
    ran("prepare", 3.26)
    ran("prepare", 2.14)
    assert journal.tags(["prepare", "sample"])["seconds.prepare"] == "2.1"
    assert "seconds.sample" not in journal.tags(["prepare", "sample"])


def test_the_training_gives_the_machine() -> None:
    ran("prepare")
    assert journal.tags(["prepare", "train"]) == {"seconds.prepare": "1.0"}
    ran("train", 60.0)
    assert journal.tags(["train"]) == {"seconds.train": "60.0", **journal.machine()}
    assert set(journal.machine()) == {"device", "processes", "cpu", "python", "torch", "ddpm"}


def test_a_run_on_other_parameters_or_inputs_does_not_count() -> None:
    ran("train")
    edit("learning_rate: 1.0e-3", "learning_rate: 1.0e-4")
    assert journal.tags(["train"]) == {}
    edit("learning_rate: 1.0e-4", "learning_rate: 1.0e-3")
    assert "seconds.train" in journal.tags(["train"])
    Path("data").mkdir()
    Path("data/train.safetensors").write_bytes(b"other images")
    assert journal.tags(["train"]) == {}


def test_a_line_that_was_cut_short_is_skipped(within: Path) -> None:
    ran("train")
    with (within / ".ckpt/journal.jsonl").open("a") as file:
        file.write('{"stage": "train", "ke\n')
    ran("sample", 7)
    assert {"seconds.train", "seconds.sample"} <= set(journal.tags(["train", "sample"]))


def test_a_journal_that_cannot_be_written_is_one_warning(within: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (within / ".ckpt").write_text("a file is in the way")
    ran("train")
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("train: its duration could not be written (")


def test_the_journal_is_not_a_resumable_state(within: Path) -> None:
    ran("train")
    assert (within / ".ckpt/journal.jsonl").exists()
    assert state.folders() == []


TORN = (
    b"",
    b"12",
    b"null",
    b'"text"',
    b"[]",
    b'{"stage": "train"}',
    b'{"stage": "train", "key": [',
    b"\xff",
    b"[" * 9999,
)


def test_lines_that_are_not_complete_are_skipped_and_spoil_no_other(within: Path) -> None:
    path = within / ".ckpt/journal.jsonl"
    ran("train", 3)
    whole = path.read_bytes()
    for torn in (*TORN, whole[:-40], whole.replace(b'"seconds": 3', b'"seconds": "?"')):
        path.write_bytes(whole + torn)
        ran("sample", 7)
        assert {"seconds.train": "3.0", "seconds.sample": "7.0"}.items() <= journal.tags(["train", "sample"]).items()


def test_without_a_readable_journal_no_duration_is_known(within: Path) -> None:
    (within / ".ckpt/journal.jsonl").mkdir(parents=True)
    assert journal.tags(["train"]) == {}
