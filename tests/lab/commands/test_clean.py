"""`ddpm clean`: the resumable states of stages."""

from pathlib import Path

import torch

from lab.experiment import state
from lab.experiment.rows import Rows
from tests.commands import run


def training(repository: Path, name: str, finished: bool) -> Path:
    """Resumable state of a training at step 20."""
    folder = repository / ".ckpt" / name
    folder.mkdir(parents=True)
    (folder / "step-00000020.safetensors").write_bytes(bytes(2_000_000))
    if finished:
        (folder / "finished-00000020").touch()
    return folder


def test_clean_removes_finished_trainings_only(repository: Path) -> None:
    finished, unfinished = training(repository, "aaaa", True), training(repository, "bbbb", False)
    result = run("clean")
    assert result.exit_code == 0
    first, second, last = result.stdout.splitlines()
    assert first.split() == ["aaaa", "finished", "at", "step", "20", "2.0", "MB", "0", "min", "ago", "removed"]
    assert second.split()[:10] == ["bbbb", "unfinished", "at", "step", "20", "2.0", "MB", "0", "min", "ago"]
    assert second.endswith("kept: the same experiment continues it (to remove it, delete .ckpt/bbbb)")
    assert last == "freed 2.0 MB, kept 2.0 MB"
    assert not finished.exists()
    assert unfinished.exists()


def test_clean_keeps_and_names_a_state_in_use(repository: Path) -> None:
    training(repository, "aaaa", True)
    with state.folder("aaaa", resume=True):
        first, last = run("clean").stdout.splitlines()
    assert first.endswith("kept: a stage uses it now")
    assert last == "freed 0.0 MB, kept 2.0 MB"


def test_clean_lists_rows_with_their_images_and_removes_finished_ones(repository: Path) -> None:
    training(repository, "aaaa", True)
    for stage, done in (("evaluate", 20_000), ("sample", 12_288)):
        rows = Rows.create(repository / f".ckpt/{stage}-aaaa/model", 20_000)
        rows.append({"images": torch.zeros(done, 100, dtype=torch.uint8)})
    (repository / ".ckpt/evaluate-aaaa/finished").touch()
    first, second, third, last = run("clean").stdout.splitlines()
    assert first.split()[:5] == ["aaaa", "finished", "at", "step", "20"]
    assert second.split()[:7] == ["evaluate-aaaa", "finished", "at", "image", "20,000", "of", "20,000"]
    assert second.endswith("removed")
    assert third.split()[:9] == ["sample-aaaa", "unfinished", "at", "image", "12,288", "of", "20,000", "1.2", "MB"]
    assert third.endswith("kept: the same experiment continues it (to remove it, delete .ckpt/sample-aaaa)")
    assert len({line.index(" MB") for line in (first, second, third)}) == 1
    assert last == "freed 4.0 MB, kept 1.2 MB"
    assert [path.name for path in (repository / ".ckpt").iterdir()] == ["sample-aaaa"]


def test_clean_with_list_removes_nothing_and_shows_the_total(repository: Path) -> None:
    finished = training(repository, "aaaa", True)
    training(repository, "bbbb", False)
    result = run("clean", "--list")
    assert result.exit_code == 0
    assert "finished" in result.stdout
    assert "removed" not in result.stdout
    assert result.stdout.endswith("\ntotal: 4.0 MB\n")
    assert finished.exists()


def test_clean_reports_that_there_is_no_state(repository: Path) -> None:
    assert not (repository / ".ckpt").exists()
    assert run("clean").stdout == "there is no resumable state\n"


def test_clean_keeps_damaged_rows_and_what_no_stage_has_made(repository: Path) -> None:
    training(repository, "aaaa", True)
    (repository / ".ckpt/sample-bbbb/model").mkdir(parents=True)
    (repository / ".ckpt/sample-bbbb/model/rows.json").write_text("{")
    (repository / ".ckpt/.ipynb_checkpoints").mkdir()
    (repository / ".ckpt/notes").mkdir()
    first, second, _ = run("clean").stdout.splitlines()
    assert first.endswith("removed")
    assert second.split()[:2] == ["sample-bbbb", "damaged"]
    assert second.endswith("(to remove it, delete .ckpt/sample-bbbb)")
    assert {path.name for path in (repository / ".ckpt").iterdir()} == {".ipynb_checkpoints", "notes", "sample-bbbb"}
