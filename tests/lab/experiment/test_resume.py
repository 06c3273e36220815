"""Where a training starts."""

import hashlib
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ddpm import files, params
from ddpm.params import Params
from lab.experiment import dvcfile, resume, state

ROOT = Path(__file__).parents[3]
TRAINING = "abc"
FINAL_STATE, SNAPSHOTS = Path("models/state.safetensors"), Path("models/snapshots")


def settings(steps: int, resuming: bool = True, decay: str = "constant") -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["train"] |= {"steps": steps, "learning_rate_decay": decay}
    values["runtime"]["resume"] = resuming
    return params.check(values)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    monkeypatch.setattr(resume, "_cache", lambda: tmp_path / "cache")
    return tmp_path


def in_cache(root: Path, content: bytes, suffix: str = "") -> str:
    """Put a file into the cache, read-only as DVC does; return its md5."""
    md5 = hashlib.md5(content).hexdigest() + suffix
    path = root / "cache/files/md5" / md5[:2] / md5[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o444)
    return md5


def recorded(root: Path, step: int, training: str = TRAINING, snapshots: Sequence[int] = ()) -> dict[str, Any]:
    """The contents of dvc.lock after a training of `step` steps, whose outputs are in the cache."""
    written = root / "state.safetensors"
    files.write_tensors(written, {"step": torch.tensor(step)}, {"step": step, "training": training})
    listing = [{"md5": in_cache(root, b"[]\n"), "relpath": "steps.json"}]
    weights = {f"{number:08d}.safetensors": b"weights %d" % number for number in snapshots}
    listing += [{"md5": in_cache(root, content), "relpath": name} for name, content in weights.items()]
    digests = {
        FINAL_STATE: in_cache(root, written.read_bytes()),
        SNAPSHOTS: in_cache(root, json.dumps(listing).encode(), ".dir"),
    }
    written.unlink()
    outs = [{"path": path.as_posix(), "md5": md5} for path, md5 in digests.items()]
    return {"schema": "2.0", "stages": {"train": {"cmd": "python -m stages.train", "outs": outs}}}


def lock(root: Path, contents: dict[str, Any]) -> None:
    (root / "dvc.lock").write_text(yaml.safe_dump(contents))


def start(params: Params) -> int:
    """The step at which the training starts."""
    with state.folder(TRAINING, params.runtime.resume) as saved:
        found = resume.find(saved, params, FINAL_STATE, SNAPSHOTS)
        assert found is None or found == saved.states[state.step_of(found)]
        return 0 if found is None else int(files.read_metadata(found)["step"])


def cache_files(root: Path) -> dict[Path, tuple[bytes, int]]:
    found = (path for path in (root / "cache").rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mode) for path in found}


def test_a_longer_training_starts_from_the_recorded_state_of_a_shorter_one(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock(root, recorded(root, 20, snapshots=[5, 7]))
    before = cache_files(root)
    assert start(settings(30)) == 20
    message = "train: continues from step 20, the end of a shorter training, whose state is in DVC's cache\n"
    assert capsys.readouterr().err == message
    assert cache_files(root) == before
    snapshots = {path.name: path.read_bytes() for path in (root / ".ckpt/abc/snapshots").iterdir()}
    assert snapshots == {"00000005.safetensors": b"weights 5", "00000007.safetensors": b"weights 7"}
    (root / ".ckpt/abc/step-00000020.safetensors").write_bytes(b"writable")


@pytest.mark.parametrize(("step", "training"), [(20, "another"), (30, TRAINING), (31, TRAINING), (0, TRAINING)])
def test_a_recorded_state_of_another_training_or_of_as_many_steps_is_not_used(
    step: int, training: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock(root, recorded(root, step, training))
    assert start(settings(30)) == 0
    assert capsys.readouterr().err == "train: no state is kept for this training: starts at step 0\n"


@pytest.mark.parametrize("lost", ["state", "snapshot"])
@pytest.mark.parametrize("how", ["absent", "changed"])
def test_a_recorded_state_that_is_not_whole_in_the_cache_is_not_used(lost: str, how: str, root: Path) -> None:
    contents = recorded(root, 20, snapshots=[5])
    md5 = contents["stages"]["train"]["outs"][0]["md5"] if lost == "state" else hashlib.md5(b"weights 5").hexdigest()
    path = root / "cache/files/md5" / md5[:2] / md5[2:]
    path.chmod(0o644)
    path.unlink() if how == "absent" else path.write_bytes(path.read_bytes()[:-1] + b"!")
    lock(root, contents)
    assert start(settings(30)) == 0


def test_the_longest_state_of_the_workspace_the_last_commit_and_the_experiments_is_used(root: Path) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
        return subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    found = []
    for step in (6, 12, 9):  # in an experiment, in the last commit, in the workspace
        lock(root, recorded(root, step))
        if step != 9:
            git("add", "dvc.lock")
            git("commit", "-qm", f"{step} steps")
        if step == 6:
            git("update-ref", f"refs/exps/aa/{'b' * 38}/tried", "HEAD")
    for steps in (30, 12, 9, 6):
        found.append(start(settings(steps)))
        for kept in (root / ".ckpt/abc").glob("step-*"):
            kept.unlink()
    assert found == [12, 9, 6, 0]


def test_a_kept_state_is_used_without_a_look_into_the_cache(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock(root, recorded(root, 20))
    assert start(settings(30)) == 20
    capsys.readouterr()
    monkeypatch.setattr(resume, "_cache", None)
    assert start(settings(40)) == 20
    assert capsys.readouterr().err == "train: continues from step 20\n"


def test_without_resuming_a_training_starts_at_step_0(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock(root, recorded(root, 20))
    assert start(settings(30)) == 20
    capsys.readouterr()
    assert start(settings(30, resuming=False)) == 0
    assert capsys.readouterr().err == "train: starts at step 0, because runtime.resume is false\n"


def test_start_at_step_0_with_a_decay_says_that_other_steps_are_another_training(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(settings(30, decay="cosine")) == 0
    assert "with train.learning_rate_decay: cosine it cannot continue one with other train.steps" in (
        capsys.readouterr().err
    )
    assert not (root / "cache").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"stages: [", b"<<<<<<< HEAD\nstages:\n=======\n", b"stages: 3\n", b"stages:\n  train: {}\n", b"\xff"],
)
def test_a_lock_file_that_is_damaged_records_no_state(content: bytes, root: Path) -> None:
    (root / "dvc.lock").write_bytes(content)
    assert start(settings(30)) == 0
