"""Stages that run at once take different GPUs. No GPU is needed: the tests replace the list of them."""

import threading
from pathlib import Path

import pytest

from lab.experiment import dvcfile, gpus


@pytest.fixture(autouse=True)
def _two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    monkeypatch.setattr(gpus, "_uuids", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(gpus, "_INTERVAL", 0.01)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_stage_takes_a_gpu_that_is_free(name: str) -> None:
    with gpus.taken(name) as first:
        with gpus.taken(name) as second:
            assert (first, second) == ("cuda:0", "cuda:1")
        with gpus.taken("auto") as third:
            assert third == "cuda:1"
    with gpus.taken(name) as after:
        assert after == "cuda:0"


def test_a_stage_waits_with_one_message_until_a_gpu_is_free(capsys: pytest.CaptureFixture[str]) -> None:
    found = []

    def wait() -> None:
        with gpus.taken("auto") as name:
            found.append(name)

    with gpus.taken("auto"):
        with gpus.taken("auto"):
            waiting = threading.Thread(target=wait)
            waiting.start()
            waiting.join(0.2)
            assert found == []
        waiting.join(20)
        assert found == ["cuda:1"]
    assert capsys.readouterr().err == "all 2 GPUs are used by other stages of this project; waiting for one\n"


def test_a_named_gpu_is_used_without_waiting_and_others_avoid_it() -> None:
    with gpus.taken("cuda:0") as first, gpus.taken("cuda:0") as again, gpus.taken("auto") as other:
        assert (first, again, other) == ("cuda:0", "cuda:0", "cuda:1")


def test_several_processes_take_as_many_gpus_and_keep_the_name_from_which_each_finds_its_own() -> None:
    found: list[str] = []
    with gpus.taken("auto", processes=2) as name:
        assert name == "auto"
        waiting = threading.Thread(target=lambda: found.append(gpus.taken("auto").__enter__()))
        waiting.start()
        waiting.join(0.2)
        assert found == []
    waiting.join(20)
    assert found == ["cuda:0"]


@pytest.mark.parametrize("name", ["cpu", "mps"])
def test_other_devices_take_no_gpu(name: str, tmp_path: Path) -> None:
    with gpus.taken(name) as device:
        assert device == name
    assert not list(tmp_path.iterdir())


def test_auto_stays_auto_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "_uuids", list)
    with gpus.taken("auto") as device:
        assert device == "auto"
