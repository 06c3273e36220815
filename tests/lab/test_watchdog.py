"""A stage that hangs is ended; one that makes progress, or waits without a progress bar, is not."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from lab.watchdog import Watchdog
from tests.imports import ROOT

LIMIT = 0.5  # seconds


def ended(watchdog: Watchdog, beats: int, watching: bool = True) -> str | None:
    """The message of a watchdog with a limit of half a second, after progress every tenth of a second, then none."""
    messages: list[str] = []
    over = threading.Event()

    def end(message: str) -> None:
        messages.append(message)
        over.set()

    with watchdog.guarding("train", LIMIT / 60, end):
        if watching:
            watchdog.watch(begin=True)
        for _ in range(beats):
            over.wait(LIMIT / 5)
            watchdog.beat()
        assert not messages
        over.wait(4 * LIMIT)
    return messages[0] if messages else None


def test_a_stage_without_progress_ends_after_the_limit() -> None:
    message = ended(Watchdog(), 0)
    assert message is not None
    assert message.startswith(
        "train: hangs: no step and no image for 0.00833333 minutes (runtime.stall_minutes). The stac"
    )


def test_progress_puts_the_end_off() -> None:
    assert ended(Watchdog(), 8) is not None


def test_without_an_open_progress_bar_nothing_ends() -> None:
    assert ended(Watchdog(), 0, watching=False) is None
    closed = Watchdog()
    closed.watch(begin=True)
    closed.watch(begin=False)
    assert ended(closed, 0, watching=False) is None


def test_a_call_of_a_beating_function_is_progress() -> None:
    watchdog = Watchdog()
    before = watchdog.__dict__["_progress"]
    assert watchdog.beating(divmod)(7, 3) == (2, 1)
    assert watchdog.__dict__["_progress"] == before + 1


HANGING = """
import time
from lab import stage

def train(params):
    with stage.bar("train", 10, "step") as bar:
        bar.update()
        sleep_in_here()

def sleep_in_here():
    time.sleep(60)

stage.run(train)
"""


@pytest.mark.parametrize(("limit", "hangs"), [(0.01, True), (None, False)])
def test_a_stage_that_hangs_ends_with_the_stacks_one_line_and_its_own_status(
    limit: float | None, hangs: bool, tmp_path: Path
) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["runtime"] |= {"stall_minutes": limit, "device": "cpu"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    script = HANGING if hangs else HANGING.replace("sleep(60)", "sleep(1)")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    environment |= {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == (124 if hangs else 0), done.stderr
    assert ("in sleep_in_here" in done.stderr) is hangs
    last = done.stderr.splitlines()[-1]
    assert last.startswith("train: hangs: no step and no image for 0.01 minutes (runtime.stall_minutes).") is hangs
