"""Where interrupted stages continue."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from ddpm.errors import UsageError
from lab.experiment import dvcfile, state
from lab.experiment.rows import Rows
from lab.experiment.state import RowsFolder, StateFolder

ROOT = Path(__file__).parents[3]
DVC_YAML = """
stages:
  train:
    cmd: python -m stages.train
    params:
      - train
      - runtime.threads
    deps:
      - data/train.bin
      - code
"""
PARAMS = "train:\n  steps: 100\n  rate: 0.1\nruntime:\n  threads: 2\n  device: cpu\n"
MACHINE = {"torch": "2", "device": "cpu"}
STATE = save({}, {"ddpm": "{}"})  # the smallest tensor file of this project
HOLDER = """
import sys
from lab.experiment import state
with state.folder("abc", resume=True) as saved:
    print("locked", flush=True)
    sys.stdin.readline()
    saved.save(7, lambda path: path.write_bytes(b"theirs"))
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text(PARAMS)
    for name in ("data/train.bin", "code/a.py", "code/deep/b.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    return tmp_path


def write(content: bytes = STATE) -> Callable[[Path], None]:
    def to(path: Path) -> None:
        path.write_bytes(content)

    return to


def fingerprint() -> str:
    return state.fingerprint("train", {"train.steps"}, MACHINE)


def finished(name: str, step: int, age: int, keep: int = 3) -> StateFolder:
    """A training that finished, with a state that is `age` seconds old. The `keep` newest are kept."""
    with state.folder(name, resume=True) as saved:
        saved.save(step, write())
        os.utime(saved.states[step], (1e9 - age, 1e9 - age))
        saved.finish(step, keep)
    return saved


def test_settings_that_are_not_in_use_do_not_change_the_fingerprint(root: Path) -> None:
    found = set()
    for weighting, gamma in (("none", 5.0), ("none", 7.0), ("min_snr", 5.0), ("min_snr", 7.0)):
        (root / "params.yaml").write_text(f"{PARAMS}train:\n  weighting: {weighting}\n  min_snr_gamma: {gamma}\n")
        found.add(fingerprint())
    assert len(found) == 3


@pytest.mark.usefixtures("root")
def test_saving_removes_the_states_before_it_only() -> None:
    with state.folder("abc", resume=True) as saved:
        saved.save(200, write())
        saved.save(40, write())
        assert list(saved.states) == [40, 200]
        saved.save(1000, write(b"last"))
        assert {step: path.read_bytes() for step, path in saved.states.items()} == {1000: b"last"}


@pytest.mark.usefixtures("root")
def test_a_state_that_cannot_be_written_removes_no_earlier_one() -> None:
    def fail(path: Path) -> None:
        raise OSError(f"no space left for {path}")

    with state.folder("abc", resume=True) as saved:
        saved.save(200, write())
        with pytest.raises(OSError, match="no space left"):
            saved.save(400, fail)
        assert list(saved.states) == [200]


@pytest.mark.usefixtures("root")
def test_the_latest_state_is_the_last_within_the_given_steps() -> None:
    with state.folder("abc", resume=True) as saved:
        assert saved.latest(100) is None
        for step in (1500, 200, 90):
            saved.save(step, write())
        assert saved.latest(1499) == saved.path / "step-00000200.safetensors"
        assert saved.latest(1500) == saved.path / "step-00001500.safetensors"
        assert saved.latest(89) is None


@pytest.mark.usefixtures("root")
def test_opening_the_folder_again_keeps_its_states_and_a_new_start_does_not() -> None:
    finished("abc", 100, age=0)
    with state.folder("abc", resume=True) as saved:
        assert saved.latest(100) is not None
    with state.folder("abc", resume=False) as saved:
        assert saved.latest(100) is None
        assert not saved.finished


@pytest.mark.usefixtures("root")
def test_a_training_is_finished_until_it_is_extended() -> None:
    with state.folder("abc", resume=True) as saved:
        saved.save(100, write())
        assert not saved.finished
        saved.finish(100, keep=3)
        assert saved.finished
        saved.save(150, write())
        assert not saved.finished


@pytest.mark.usefixtures("root")
def test_a_shorter_training_does_not_change_the_status_of_a_longer_one() -> None:
    with state.folder("abc", resume=True) as saved:
        saved.save(216, write())
        saved.save(20, write())
        saved.finish(20, keep=3)
        assert saved.status == "unfinished at step 216"
        saved.save(3000, write())
        saved.finish(3000, keep=3)
        saved.save(20, write())
        saved.finish(20, keep=3)
        assert saved.status == "finished at step 3000"


@pytest.mark.usefixtures("root")
def test_error_of_a_damaged_state_names_the_remedy() -> None:
    with state.folder("abc", resume=True) as saved:
        saved.save(216, write(STATE[:-1]))
        saved.save(20, write())
        with pytest.raises(
            UsageError, match=r"step-00000216\.\w+ is not a complete .*; remove that file, or .*resume=false"
        ):
            saved.latest(3000)
        assert saved.latest(100) == saved.states[20]
        saved.states[216].unlink()
        assert saved.latest(3000) == saved.states[20]


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("saves", "resume", "announced"),
    [
        (True, True, "the same command continues from step 7"),
        (False, True, "the same command starts at step 0, no state is saved"),
        (True, False, ""),
    ],
)
def test_the_message_of_an_interrupted_training_names_the_step_at_which_it_continues(
    saves: bool, resume: bool, announced: str
) -> None:
    def training() -> None:
        with state.folder("abc", resume) as saved:
            if saves:
                saved.save(7, write())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupt:
        training()
    assert str(interrupt.value) == announced
    assert state.folders()[0].remove() is True  # the lock is free


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(("keep", "kept"), [(1, ["c"]), (3, ["b", "c", "e"]), (9, ["a", "b", "c", "d", "e"])])
def test_the_given_number_of_finished_trainings_and_all_unfinished_ones_stay(keep: int, kept: list[str]) -> None:
    with state.folder("unfinished", resume=True) as saved:
        saved.save(1, write())
        os.utime(saved.states[1], (0, 0))
    for name, age in (("d", 5), ("a", 4), ("e", 3), ("b", 2), ("c", 1)):
        finished(name, 100, age, keep)
    assert [saved.path.name for saved in state.folders()] == [*kept, "unfinished"]


@pytest.mark.usefixtures("root")
def test_the_folder_of_snapshots_lists_their_steps_and_is_never_empty(tmp_path: Path) -> None:
    with state.folder("abc", resume=True) as saved:
        saved.snapshot(5).write_bytes(b"weights")
        saved.snapshot(7).write_bytes(b"not asked for")
        saved.copy_snapshots([5], tmp_path / "snapshots")
        saved.copy_snapshots([], tmp_path / "none")
    copied = {path.name: path.read_bytes() for path in (tmp_path / "snapshots").iterdir()}
    assert copied == {"00000005.safetensors": b"weights", "steps.json": b"[5]\n"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "none").iterdir()} == {"steps.json": b"[]\n"}


@pytest.mark.usefixtures("root")
def test_state_of_the_training_that_just_finished_is_kept_regardless_of_its_age() -> None:
    for name, age in (("d", 1), ("a", 2), ("e", 3), ("b", 9)):
        finished(name, 100, age)
    assert [saved.path.name for saved in state.folders()] == ["a", "b", "d", "e"]


@pytest.mark.usefixtures("root")
def test_a_folder_that_is_being_written_is_not_removed() -> None:
    saved = finished("abc", 100, age=0)
    with state.folder("abc", resume=True):
        assert saved.remove() is False
        assert saved.finished
    assert saved.remove() is True
    assert state.folders() == []


def sampled(fingerprint: str, age: int, done: int = 30) -> RowsFolder:
    """Sampling that finished with `done` images of 30, a number of seconds ago."""
    with state.rows_folder("sample", fingerprint, resume=True) as saved:
        rows = Rows.create(saved.path / "model", 30)
        rows.append({"images": torch.zeros(done, 1, dtype=torch.uint8)})
        for path in saved.path.glob("**/*.*"):
            os.utime(path, (1e9 - age, 1e9 - age))
        if done == 30:
            saved.finish()
    return saved


@pytest.mark.usefixtures("root")
def test_the_status_of_rows_counts_the_images_of_all_sets() -> None:
    with state.rows_folder("sample", "abc", resume=True) as saved:
        sets = [Rows.create(saved.path / name, 1500) for name in ("model", "00000005")]
        assert (saved.status, saved.stage) == ("empty", "sample")
        sets[0].append({"images": torch.zeros(1500, 1)})
        sets[1].append({"images": torch.zeros(16, 1)})
        assert saved.status == "unfinished at image 1,516 of 3,000"
        saved.finish()
    assert saved.status == "finished at image 1,516 of 3,000"
    assert saved.size == 1516 * 4 + sum(path.stat().st_size for path in saved.path.glob("*/rows.json"))


@pytest.mark.usefixtures("root")
def test_the_newest_finished_rows_of_each_stage_are_kept_beside_trainings() -> None:
    finished("abc", 100, age=99)
    with state.rows_folder("evaluate", "aaaa", resume=True) as other:
        other.finish()
    for fingerprint, age, done in (("eeee", 4, 30), ("bbbb", 1, 12), ("dddd", 3, 30), ("cccc", 2, 30)):
        sampled(fingerprint, age, done)
    kept = ["abc", "evaluate-aaaa", "sample-bbbb", "sample-cccc"]
    assert [saved.path.name for saved in state.folders()] == kept
    assert [type(saved) for saved in state.folders()] == [StateFolder, RowsFolder, RowsFolder, RowsFolder]
    finished("def", 100, age=1, keep=1)
    assert [saved.path.name for saved in state.folders()] == ["def", *kept[1:]]


@pytest.mark.usefixtures("root")
def test_a_new_start_removes_rows_and_files() -> None:
    saved = sampled("abc", 0)
    (saved.path / "extractor.safetensors").write_bytes(b"weights")
    with state.rows_folder("sample", "abc", resume=True) as again:
        assert Rows.create(again.path / "model", 30).done == 30
    with state.rows_folder("sample", "abc", resume=False) as again:
        assert (again.status, again.finished) == ("empty", False)
        assert {path.name for path in again.path.iterdir()} == {"lock"}


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    ("done", "announced"), [(12, "continues from image 12 of 30"), (0, "starts at image 0, none is kept")]
)
def test_the_message_of_interrupted_rows_names_the_image_at_which_they_continue(done: int, announced: str) -> None:
    def work() -> None:
        sampled("abc", 0, done)
        with state.rows_folder("sample", "abc", resume=True):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as interrupt:
        work()
    assert str(interrupt.value) == f"the same command {announced}"
    assert state.folders()[0].remove() is True  # the lock is free


def test_the_fingerprint_ignores_what_may_differ(root: Path) -> None:
    before = fingerprint()
    (root / "params.yaml").write_text(PARAMS.replace("100", "999").replace("device: cpu", "device: cuda"))
    (root / "code/notes.txt").write_text("no Python")
    assert fingerprint() == before
    assert state.fingerprint("train", set(), MACHINE) != before


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("params.yaml", PARAMS.replace("0.1", "0.2")),
        ("params.yaml", PARAMS.replace("threads: 2", "threads: 4")),
        ("code/deep/b.py", "y"),
        ("code/new.py", "x"),
        ("data/train.bin", "y"),
    ],
)
def test_the_fingerprint_changes_with_parameters_code_and_data(path: str, content: str, root: Path) -> None:
    before = fingerprint()
    (root / path).write_text(content)
    assert fingerprint() != before


@pytest.mark.usefixtures("root")
def test_the_fingerprint_changes_with_the_machine_and_is_a_short_name() -> None:
    assert state.fingerprint("train", {"train.steps"}, {**MACHINE, "device": "cuda"}) != fingerprint()
    assert len(fingerprint()) == 16
    assert set(fingerprint()) <= set("0123456789abcdef")


def test_a_second_process_waits_and_then_finds_the_states_of_the_first(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "DVC_ROOT": str(root), "PYTHONPATH": str(ROOT)}
    environment.pop("DVC_STAGE", None)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        assert first.stdout.readline() == "locked\n"
        assert StateFolder(root / ".ckpt/abc").remove() is False
        printed: list[str] = []

        def show(message: str, **_: object) -> None:  # where the stage prints; only now may the first go on
            printed.append(message)
            print("go on", file=first.stdin, flush=True)

        monkeypatch.setattr(state, "print", show, raising=False)
        with state.folder("abc", resume=True) as saved:
            assert saved.states[7].read_bytes() == b"theirs"
    assert [message.split(";")[0] for message in printed] == ["another process runs the same training"]


def test_age_is_given_in_minutes_then_in_hours_then_in_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state.time, "time", lambda: 1e9)
    assert state.age(1e9 - 150) == "2 min ago"
    assert state.age(1e9 - 1.5 * 3600) == "1.5 h ago"
    assert state.age(1e9 - 72 * 3600) == "3 d ago"


FOREIGN = (
    "step-00000060 copy.safetensors",
    "step-60.safetensors",
    ".DS_Store",
    ".notes.12.txt",
    "finished-copy",
    "notes.txt",
    ".ipynb_checkpoints/step-00000099.safetensors",
    "nested/step-00000099.safetensors",
    "step-00000098.safetensors/inside",
    "model copy/rows.json",
    ".model.json/rows.json",
)


def add_foreign(folder: Path) -> None:
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("somebody's")


def foreign(folder: Path) -> list[str]:
    return sorted(name for name in FOREIGN if (folder / name).read_text() == "somebody's")


@pytest.mark.usefixtures("root")
def test_foreign_files_among_states_are_neither_read_nor_removed() -> None:
    with state.folder("abc", resume=True) as saved:
        saved.save(40, write())
    add_foreign(saved.path)
    for leftover in (".step-00000080.123.safetensors", "snapshots/.00000005.7.safetensors"):
        (saved.path / leftover).parent.mkdir(exist_ok=True)
        (saved.path / leftover).touch()
    with state.folder("abc", resume=True) as saved:
        assert list(saved.states) == [40]
        assert saved.status == "unfinished at step 40"
        assert saved.latest(1000) == saved.path / "step-00000040.safetensors"
        saved.save(50, write())
        saved.finish(50, keep=3)
    assert saved.status == "finished at step 50"
    with state.folder("abc", resume=False) as saved:
        assert saved.empty
    assert foreign(saved.path) == sorted(FOREIGN)
    ours = {path.name for path in saved.path.rglob("*") if path.is_file()} - {Path(name).name for name in FOREIGN}
    assert ours == {"lock"}


@pytest.mark.usefixtures("root")
def test_foreign_files_among_rows_are_neither_read_nor_removed() -> None:
    saved = sampled("abc", 0, done=12)
    (saved.path / "extractor.safetensors").write_text("weights")
    (saved.path / "model/.rows.123.json").write_text("half")
    add_foreign(saved.path)
    with state.rows_folder("sample", "abc", resume=True) as saved:
        assert list(saved.rows) == ["model"]
        assert saved.status == "unfinished at image 12 of 30"
    with state.rows_folder("sample", "abc", resume=False) as saved:
        assert saved.empty
    assert foreign(saved.path) == sorted(FOREIGN)
    assert not (saved.path / "model").exists()
    assert not (saved.path / "extractor.safetensors").exists()


def test_only_folders_that_a_stage_has_made_are_state_folders(root: Path) -> None:
    finished("abc", 100, age=0)
    sampled("abc", 0)
    for name in (".ipynb_checkpoints", "abc copy", "abc.old", "backup", "sample-abc (1)"):
        shutil.copytree(root / ".ckpt/abc", root / ".ckpt" / name)
    for path in (root / ".ckpt/backup").iterdir():
        path.unlink()
    (root / ".ckpt/backup/notes.txt").touch()
    assert [folder.path.name for folder in state.folders()] == ["abc", "sample-abc"]
