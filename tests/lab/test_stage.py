"""The self-check of a stage: what the user reads, and that inputs did not change while it ran."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DVC_YAML = """
stages:
  tiny:
    cmd: python tiny.py
    params:
      - model
      - runtime.threads
    deps:
      - tiny.py
      - code
      - data/in.safetensors
      - snapshots
"""
PARAMS = "model:\n  width: 4\n  depth: 2\nruntime:\n  threads: 2\n  device: cpu\n"
STAGE = """
from lab.experiment import dvcfile
from pathlib import Path
from ddpm.errors import UsageError
with dvcfile.running("tiny"):
    {body}
print("done")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    (tmp_path / "params.yaml").write_text(PARAMS)
    for folder in ("code", "data", "snapshots"):
        (tmp_path / folder).mkdir()
    (tmp_path / "code/a.py").write_text("x = 1\n")
    (tmp_path / "code/page.html").write_text("<p>")
    (tmp_path / "code/notes.txt").write_text("notes")
    for path in ("data/in.safetensors", "snapshots/5.safetensors"):
        (tmp_path / path).write_bytes((4).to_bytes(8, "little") + b"head" + b"tensors")
    return tmp_path


def run(project: Path, body: str, stage: str | None = "tiny") -> subprocess.CompletedProcess[str]:
    """Run the stage as DVC does, with a body that may do anything."""
    (project / "tiny.py").write_text(STAGE.format(body=body))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    environment |= {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(project)} | ({"DVC_STAGE": stage} if stage else {})
    command = [sys.executable, "tiny.py"]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def edit(path: str, old: str, new: str) -> str:
    return f"p = Path({path!r}); p.write_text(p.read_text().replace({old!r}, {new!r}))"


def test_a_stage_whose_inputs_stay_ends_well(project: Path) -> None:
    done = run(project, "Path('out').write_text('result')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_stage_that_ends_well_is_in_the_journal_and_no_other(project: Path) -> None:
    run(project, "raise UsageError('mend this')")
    run(project, edit("code/a.py", "1", "2"))
    assert not (project / ".ckpt").exists()
    run(project, "import time; time.sleep(0.3)")
    [line] = (project / ".ckpt/journal.jsonl").read_text().splitlines()
    noted = json.loads(line)
    assert noted["stage"] == "tiny"
    assert 0.3 <= noted["seconds"] < 60


def test_what_the_user_can_mend_is_one_line_and_no_traceback(project: Path) -> None:
    done = run(project, "raise UsageError('data.path = None: name a folder')")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "tiny: data.path = None: name a folder\n")


@pytest.mark.parametrize(("more", "told"), [("", ""), ("('it goes on')", "; it goes on")])
def test_an_interrupted_stage_ends_in_one_line_and_fails(more: str, told: str, project: Path) -> None:
    done = run(project, f"raise KeyboardInterrupt{more}")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"tiny: interrupted{told}\n")
    assert not (project / ".ckpt").exists()


def test_another_error_keeps_its_traceback(project: Path) -> None:
    done = run(project, "raise KeyError('a bug')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (edit("code/a.py", "1", "2"), "code/a.py"),
        (edit("code/page.html", "p", "b"), "code/page.html"),
        (edit("tiny.py", "done", "gone"), "tiny.py"),
        ("Path('code/new.py').write_text('')", "code/new.py"),
        ("Path('code/a.py').unlink()", "code/a.py"),
        ("Path('data/in.safetensors').write_bytes((4).to_bytes(8, 'little') + b'HEADtensors')", "data/in.safetensors"),
        ("Path('data/in.safetensors').unlink()", "data/in.safetensors"),
        ("Path('snapshots/5.safetensors').unlink()", "snapshots/5.safetensors"),
        (edit("params.yaml", "width: 4", "width: 5"), "model"),
        (edit("params.yaml", "threads: 2", "threads: 3"), "runtime.threads"),
        (edit("code/a.py", "1", "2") + "; " + edit("params.yaml", "threads: 2", ""), "code/a.py, runtime.threads"),
    ],
)
def test_an_input_that_changes_while_the_stage_runs_fails_it_by_name(body: str, named: str, project: Path) -> None:
    done = run(project, body)
    message = f"tiny: {named} changed while the stage ran; its outputs fit neither, run it again\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


@pytest.mark.parametrize(
    "body",
    [
        edit("code/notes.txt", "notes", "other notes"),
        edit("params.yaml", "device: cpu", "device: cuda"),
        edit("params.yaml", "width: 4", "width: 4  # a comment"),
        "import os; os.utime('code/a.py', (0, 0))",
    ],
)
def test_what_a_stage_does_not_depend_on_may_change(body: str, project: Path) -> None:
    assert run(project, body).returncode == 0


def test_a_stage_started_by_hand_runs_without_the_check(project: Path) -> None:
    assert run(project, edit("code/a.py", "1", "2"), stage=None).returncode == 0


def test_a_usage_error_says_more_than_a_changed_input(project: Path) -> None:
    done = run(project, edit("code/a.py", "1", "2") + "; raise UsageError('mend this')")
    assert done.stderr == "tiny: mend this\n"


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 40])
def test_a_broken_tensor_file_among_the_inputs_is_left_to_the_stage_to_explain(content: bytes, project: Path) -> None:
    (project / "data/in.safetensors").write_bytes(content)
    done = run(project, "raise UsageError('data/in.safetensors is broken')")
    assert done.stderr == "tiny: data/in.safetensors is broken\n"
