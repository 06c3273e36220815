"""Stages that run at once, and their threads."""

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.experiment import dvcfile, running

ROOT = Path(__file__).parents[3]
OTHER = """
import sys
from lab.experiment import running
with running.announced(3):
    print("runs", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    return tmp_path


@pytest.fixture
def other(root: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in which a stage of the same repository runs with three threads."""
    environment = {**os.environ, "DVC_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", OTHER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        yield process
        process.kill()


@pytest.mark.usefixtures("root")
def test_a_single_stage_has_no_others_however_often_stages_run() -> None:
    for _ in range(3):
        with running.announced(2) as others:
            assert others == []


@pytest.mark.usefixtures("other")
def test_a_running_stage_is_counted_with_its_threads() -> None:
    with running.announced(2) as others:
        assert others == [3]


def test_a_killed_stage_is_not_counted_and_leaves_no_file(root: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    with running.announced(2) as others:
        assert others == []
        assert [path.name.rpartition("-")[2] for path in (root / ".ckpt").glob("running-*")] == ["2"]
    assert list((root / ".ckpt").glob("running-*")) == []


def test_a_stage_of_another_machine_is_not_counted(root: Path) -> None:
    (root / ".ckpt").mkdir()
    elsewhere = root / ".ckpt/running-another.example.org-12-8"
    with running.FileLock(elsewhere), running.announced(2) as others:
        assert others == []


def test_a_folder_that_cannot_be_written_yields_no_stages(root: Path) -> None:
    (root / ".ckpt").write_text("a file where the folder should be")
    with running.announced(2) as others:
        assert others == []


@pytest.mark.parametrize(
    ("threads", "others", "text"),
    [
        (2, [], None),
        (9, [], None),  # one stage with more threads than cores
        (1, [1], None),
        (2, [2], "2 stages run at once with 2 threads each on 2 cores, .*: use -S runtime.threads=1 or --jobs 1"),
        (2, [1], "2 stages run at once with 3 threads on 2 cores, .*: use -S runtime.threads=1 or --jobs 1"),
        (1, [2], "2 stages run at once with 3 threads on 2 cores, .*: use --jobs 2"),
        (1, [1, 1], "3 stages run at once with 1 thread each on 2 cores, .*: use --jobs 2"),
    ],
)
def test_more_threads_than_cores_need_fewer_threads_or_jobs(
    threads: int, others: list[int], text: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "_cores", lambda: 2)
    advice = running.advice(threads, others)
    assert advice is None if text is None else re.fullmatch(text, advice or "")


def test_files_of_others_are_not_running_stages_and_stay(root: Path) -> None:
    (root / ".ckpt").mkdir()
    prefix = f"running-{platform.node()}-"
    names = {f"{prefix}12-3 copy", f"{prefix}notes", f"{prefix}12-3.bak"}
    for name in names:
        (root / ".ckpt" / name).touch()
    with running.announced(2) as others:
        assert others == []
    assert names <= {path.name for path in (root / ".ckpt").iterdir()}
