"""The command line that starts a stage again under a launcher."""

import logging
import os
import signal
import sys

import pytest
from torch.distributed import run

from ddpm.errors import UsageError
from lab import launch


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that would have taken the place of this process."""
    found: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda program, command: found.append([program, *command]))
    monkeypatch.setattr(sys, "argv", ["stages/train.py", "--data", "a folder/train.safetensors"])
    monkeypatch.setenv("OMP_NUM_THREADS", "9")  # restored, as delenv alone would not be
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setenv("HEAD", "first-machine")
    return found


def test_torchrun_is_that_of_the_same_python(executed: list[list[str]]) -> None:
    launch.start_again("torchrun --nproc-per-node=2", "stages.train", threads=3)
    python = sys.executable
    stage = ["-m", "stages.train", "--data", "a folder/train.safetensors"]
    assert executed == [[python, python, "-m", "lab.launch", "--nproc-per-node=2", *stage]]
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_a_launcher_may_have_variables_of_the_environment_and_quoted_words(executed: list[list[str]]) -> None:
    launch.start_again("env 'A=b c' torchrun --rdzv-endpoint=$HEAD:29400", "stages.train", threads=1)
    assert executed[0][:3] == ["env", "env", "A=b c"]
    assert executed[0][3:7] == [sys.executable, "-m", "lab.launch", "--rdzv-endpoint=first-machine:29400"]


def test_a_program_that_does_not_exist_is_named(executed: list[list[str]]) -> None:
    with pytest.raises(UsageError, match=r"runtime.launcher = 'no-such -n 2': there is no program 'no-such'"):
        launch.start_again("no-such -n 2", "stages.train", threads=1)
    assert executed == []


@pytest.mark.parametrize(("handling", "handled"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_torchrun_does_not_handle_a_signal_that_nohup_ignores(
    handling: signal.Handlers, handled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists: list[list[str]] = []
    monkeypatch.setenv("PET_SIGNALS_TO_HANDLE", "restored at the end")
    monkeypatch.delenv("PET_SIGNALS_TO_HANDLE")
    monkeypatch.setenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    monkeypatch.setattr(run, "main", lambda: lists.append(os.environ["PET_SIGNALS_TO_HANDLE"].split(",")))
    monkeypatch.setattr(logging, "disable", lambda _: None)
    before = signal.signal(signal.SIGHUP, handling)
    try:
        assert launch._torchrun() == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert [("SIGHUP" in one, "SIGTERM" in one) for one in lists] == [(handled, True)]
