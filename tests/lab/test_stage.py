"""The start and end of a stage: arguments, errors, and inputs that change while it runs."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import terminal
from lab.experiment import dvcfile, running
from lab.stage import Interrupted, bar, signals_deferred

ROOT = Path(__file__).parents[2]
DVC_YAML = """
stages:
  tiny:
    cmd: python -m stages.tiny --first-out one --second two
    params:
      - network
      - runtime.threads
    deps:
      - stages/tiny.py
      - code
      - data/in.safetensors
      - snapshots
"""
STAGE = """
from pathlib import Path

from ddpm.errors import UsageError
from ddpm.params import Params
from lab import stage

{imported}

def {name}(params: Params, first_out: Path, second: Path) -> None:
    \"""Write nothing of use.\"""
    {body}


if __name__ == "__main__":
    stage.run({name})
    print("done")
"""


LATE = """
import os, signal
from lab import stage

def late(params):
    pass

stage.run(late)
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt as interrupt:
    stage.end_interrupted("late", interrupt)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for folder in ("code", "data", "snapshots", "stages"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    for name in ("params.yaml", "stages/__init__.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "code/a.py").write_text("x = 1\n")
    (tmp_path / "code/page.html").write_text("<p>")
    (tmp_path / "code/notes.txt").write_text("notes")
    for path in ("data/in.safetensors", "snapshots/5.safetensors"):
        (tmp_path / path).write_bytes((4).to_bytes(8, "little") + b"head" + b"tensors")
    return tmp_path


Done = subprocess.CompletedProcess[str]
PATHS = ("--first-out", "one", "--second", "two")


def run(
    project: Path,
    body: str,
    imported: str = "",
    stage: str | None = "tiny",
    arguments: tuple[str, ...] = PATHS,
    where: Path | None = None,
    name: str = "tiny",
) -> Done:
    """Run the stage as DVC does, with a body of any code; `imported` runs when the stage is imported."""
    (project / f"stages/{name}.py").write_text(STAGE.format(body=body, imported=imported, name=name))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    environment |= {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(project)} | ({"DVC_STAGE": stage} if stage else {})
    command = [sys.executable, "-m", f"stages.{name}", *arguments]
    return subprocess.run(command, cwd=where or project, env=environment, capture_output=True, text=True, check=False)


def edit(path: str, old: str, new: str) -> str:
    return f"p = Path({path!r}); p.write_text(p.read_text().replace({old!r}, {new!r}))"


def test_a_stage_gets_the_parameters_and_its_paths(project: Path) -> None:
    done = run(project, "print(params.network.channels, repr(first_out), repr(second))")
    assert (done.returncode, done.stdout, done.stderr) == (0, "32 PosixPath('one') PosixPath('two')\ndone\n", "")


def test_a_stage_requires_every_path_and_has_a_help(project: Path) -> None:
    missing = run(project, "pass", arguments=PATHS[:2])
    assert missing.returncode == 2
    assert "the following arguments are required: --second" in missing.stderr
    shown = run(project, "pass", arguments=("--help",)).stdout
    assert shown.startswith("usage: python -m stages.tiny [-h] --first-out PATH --second PATH\n")
    assert "Write nothing of use." in shown


def test_a_stage_that_cannot_fit_ends_with_a_line_before_its_work(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("  channels: 32 ", "  channels: 16384 ", 1))
    done = run(project, "print('began')", name="train", stage=None)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("train: the state of the network needs at least 3.65 TB of memory, and this machine has ")
    assert line.endswith(": lower network.channels")


def test_a_wrong_parameter_is_a_message_without_traceback(project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("channels: 32", "channels: many"))
    done = run(project, "print('began')")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("tiny: params.yaml")
    assert "network" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stage", ["tiny", None])
def test_refused_parameters_name_the_way_back_where_dvc_has_removed_outputs(stage: str | None, project: Path) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("channels: 32", "channels: many"))
    way_back = (
        "\nset an allowed value and run again, or go back to the last commit: "
        "git restore params.yaml dvc.lock reports && dvc checkout\n"
    )
    assert run(project, "pass", stage=stage).stderr.endswith(way_back) == (stage == "tiny")
    copy = shutil.copytree(project, project / "copy")  # where `dvc exp run --temp` would run the stage
    assert way_back not in run(project, "pass", stage=stage, where=copy).stderr


def test_only_a_stage_that_succeeds_is_in_the_journal(project: Path) -> None:
    run(project, "raise UsageError('fix this')")
    run(project, edit("code/a.py", "1", "2"))
    assert not (project / ".ckpt").exists()
    run(project, "import time; time.sleep(0.3)")
    [line] = (project / ".ckpt/journal.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry["stage"] == "tiny"
    assert 0.3 <= entry["seconds"] < 60


def test_a_usage_error_is_one_line_without_traceback(project: Path) -> None:
    done = run(project, "raise UsageError('data.path = None: name a folder')")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "tiny: data.path = None: name a folder\n")


@pytest.mark.parametrize(("more", "shown"), [("", ""), ("('more follows')", "; more follows")])
def test_an_interrupted_stage_fails_with_one_line(more: str, shown: str, project: Path) -> None:
    done = run(project, f"raise KeyboardInterrupt{more}")
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"tiny: interrupted{shown}\n")
    assert not (project / ".ckpt").exists()


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_stage_with_one_line_and_its_own_exit_status(name: str, status: int, project: Path) -> None:
    default = f"import os, signal, time; signal.signal(signal.{name}, signal.SIG_DFL)"
    done = run(project, f"os.kill(os.getpid(), signal.{name}); time.sleep(60)", imported=default)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"tiny: ended by {name}\n")


def test_ctrl_c_while_a_stage_is_imported_has_no_traceback(project: Path) -> None:
    default = "import os, signal; signal.signal(signal.SIGINT, signal.default_int_handler); stage.note_inputs()"
    done = run(project, "pass", imported=f"{default}; os.kill(os.getpid(), signal.SIGINT)")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    done = run(project, "os.kill(os.getpid(), signal.SIGINT)", imported=default)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "tiny: interrupted\n")


def test_a_signal_after_the_outputs_are_written_is_one_line(project: Path) -> None:
    (project / "stages/late.py").write_text(LATE)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    command = [sys.executable, "-m", "stages.late"]
    variables = environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (143, "late: ended by SIGTERM\n")


def test_a_stage_under_nohup_outlives_its_terminal(project: Path) -> None:
    as_nohup = "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    body = "with stage.signals_deferred() as received: os.kill(os.getpid(), signal.SIGHUP); print(received())"
    done = run(project, body, imported=as_nohup)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\ndone\n", "")


def test_any_other_error_keeps_its_traceback(project: Path) -> None:
    done = run(project, "raise KeyError('a bug')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (edit("code/a.py", "1", "2"), "code/a.py"),
        (edit("code/page.html", "p", "b"), "code/page.html"),
        (edit("stages/tiny.py", "done", "gone"), "stages/tiny.py"),
        ("Path('code/new.py').write_text('')", "code/new.py"),
        ("Path('code/a.py').unlink()", "code/a.py"),
        ("Path('data/in.safetensors').write_bytes((4).to_bytes(8, 'little') + b'HEADtensors')", "data/in.safetensors"),
        ("Path('data/in.safetensors').unlink()", "data/in.safetensors"),
        ("Path('snapshots/5.safetensors').unlink()", "snapshots/5.safetensors"),
        (edit("params.yaml", "channels: 32", "channels: 64"), "network"),
        (edit("params.yaml", "threads: 2", "threads: 3"), "runtime.threads"),
        (edit("code/a.py", "1", "2") + "; " + edit("params.yaml", "threads: 2", ""), "code/a.py, runtime.threads"),
    ],
)
def test_an_input_that_changes_while_the_stage_runs_fails_it_by_name(body: str, named: str, project: Path) -> None:
    done = run(project, body)
    message = f"tiny: {named} changed while the stage ran: run it again\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_code_that_changes_while_the_stage_is_imported_fails_it(project: Path) -> None:
    done = run(project, "pass", imported=edit("code/a.py", "1", "2"))
    assert done.returncode == 1
    assert done.stderr.startswith("tiny: code/a.py changed while the stage ran")


@pytest.mark.parametrize(
    "body",
    [
        edit("code/notes.txt", "notes", "other notes"),
        edit("params.yaml", "device: auto", "device: cuda"),
        edit("params.yaml", "threads: 2", "threads: 2  # a comment"),
        "import os; os.utime('code/a.py', (0, 0))",
    ],
)
def test_files_and_parameters_that_a_stage_does_not_depend_on_may_change(body: str, project: Path) -> None:
    assert run(project, body).returncode == 0


@pytest.mark.parametrize(("stage", "warned"), [("sample", True), ("prepare", False)])
def test_a_stage_that_computes_warns_of_too_many_threads_if_another_runs(
    stage: str, warned: bool, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvcfile, "ROOT", project)
    alone = run(project, "pass", stage=None, name=stage)
    with running.announced(os.cpu_count() or 1):
        beside = run(project, "pass", stage=None, name=stage)
    assert (alone.returncode, alone.stderr, beside.returncode) == (0, "", 0)
    assert beside.stderr.startswith(f"{stage}: 2 stages run at once with ") is warned


def test_a_stage_started_by_hand_does_not_check_its_inputs(project: Path) -> None:
    assert run(project, edit("code/a.py", "1", "2"), stage=None).returncode == 0
    assert not (project / ".ckpt").exists()


def test_a_usage_error_takes_precedence_over_a_changed_input(project: Path) -> None:
    done = run(project, edit("code/a.py", "1", "2") + "; raise UsageError('fix this')")
    assert done.stderr == "tiny: fix this\n"


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 40])
def test_a_broken_tensor_file_among_the_inputs_is_reported_by_the_stage(content: bytes, project: Path) -> None:
    (project / "data/in.safetensors").write_bytes(content)
    done = run(project, "raise UsageError('data/in.safetensors is broken')")
    assert done.stderr == "tiny: data/in.safetensors is broken\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_progress_bar_counts_from_the_units_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    with bar("train", 100, "step", done=40) as progress:
        progress.update(60)
    assert "\rtrain: 100%" in sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert (progress.n, progress.initial) == (100, 40)


@pytest.mark.parametrize(("updates", "shown"), [(50, [45, 75, 90]), (30, [45, 70]), (35, [45, 75])])
def test_progress_in_a_log_is_a_line_after_5_seconds_then_every_30_seconds_and_a_last_one(
    updates: int, shown: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with bar("train", 90, "step", done=40) as progress:
        progress.mininterval = 0
        for _ in range(updates):
            now += 1.0
            progress.update()
        now += 31.0
    written = capsys.readouterr().err
    assert [line.split(",")[0] for line in written.splitlines()] == [f"train: {done}/90 step" for done in shown]
    assert "\r" not in written


def test_progress_that_stops_early_ends_with_the_units_that_are_done(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("train", 100, "step", done=40) as progress:
        progress.update(20)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("train: 60/100 step, 00:00 elapsed, ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_are_deferred_until_a_second_ctrl_c(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "ending_signals", lambda: [signal.SIGTERM, signal.SIGHUP])  # also under nohup
    before = signal.getsignal(signal.SIGINT)
    with signals_deferred() as received:
        assert received() == 0
        for _ in range(2):
            signal.raise_signal(number)
        assert received() == number
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with signals_deferred() as received:
        signal.raise_signal(signal.SIGINT)
        assert received() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
