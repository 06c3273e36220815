"""A full disk, a limit of file sizes, a read-only folder and a limit of memory end a stage with one line.

Nothing is lost: the files from before stay as they are, and without the limit the same command gives the same bytes.
"""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.stages import limited
from tests.stages.limited import OUTPUTS, STAGES, Ended, Limits

DISK = 16 * 2**20
# Bytes that are left on the disk, bytes of a file, bytes of memory: enough to begin the work, too few to end it.
ROOM = {"prepare": 20_000, "train": 4_500_000, "reference": 100_000, "report": 60_000}
FILE_SIZE = {"prepare": 10_000, "train": 500_000, "reference": 100_000, "report": 100_000}
MEMORY = {"reference": 1_000_000, "train": 40_000_000, "sample": 1_000_000, "evaluate": 1_000_000}
REASON = {
    "full disk": r" cannot be written: the disk at \S+ is full: [\d,]+ bytes are free.*; free space",
    "file size": r" cannot be written: it has more bytes than a file may have \(the limit is [\d,]+, ulimit -f\)",
    "read-only folder": r" cannot be written: \S+ is read-only; make it writable",
    "memory": r"the memory does not suffice: .*the process may use [\d,]+ MB of addresses \(ulimit -v\), ",
}
PROGRESS = re.compile(
    r"|[\w ]+(: [\w ]+)?: [\d,]+/[\d,]+ \w+, .*|train: cpu, .*|\w+: (continues from|no state is kept).*"
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs of all stages without limits."""
    folder = limited.project(tmp_path_factory.mktemp("limits") / "made")
    for name in STAGES:
        ended = limited.run(name, folder, folder, folder)
        assert ended.status == 0, ended.errors
    return folder


def mount(*arguments: object) -> None:
    """Mount a file system, or skip the test where this is not allowed."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount file systems: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system in memory."""
    path = tmp_path / "disk"
    path.mkdir()
    mount("-t", "tmpfs", "-o", f"size={DISK}", "none", path)
    yield path
    subprocess.run(["umount", "--recursive", path], check=True)


@contextmanager
def limit(kind: str, name: str, folder: Path) -> Iterator[Limits]:
    """Limit what stage `name` may use in `folder`, until the block ends."""
    if kind == "file size":
        yield Limits(file_size=FILE_SIZE.get(name, 1_000))
    elif kind == "memory":
        yield Limits(memory=MEMORY.get(name, 0))
    elif kind == "read-only folder":
        mount("--bind", folder, folder)
        mount("-o", "remount,bind,ro", folder)
        try:
            yield Limits()
        finally:
            subprocess.run(["umount", folder], check=True)
    else:
        filler = folder / "filler"
        with filler.open("wb") as file:
            file.write(b" " * (shutil.disk_usage(folder).free - ROOM.get(name, 0)))
        yield Limits()
        filler.unlink()


def files(folder: Path) -> dict[str, bytes]:
    """The contents of all files but those of MLflow and locks, by path."""
    ours = (path for path in folder.rglob("*") if path.is_file() and path.suffix not in (".db", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in ours if path.name != "lock"}


def cause(name: str, ended: Ended) -> str:
    """The one line that a failed stage has printed beside progress and the warnings about MLflow."""
    lines = [line for line in ended.errors.splitlines() if not PROGRESS.fullmatch(line)]
    own = [line for line in lines if not line.startswith("MLflow could not be written")]
    assert (ended.status, len(own)) == (1, 1), ended.errors
    [line] = own
    assert line.startswith(f"{name}: ")
    return line.removeprefix(f"{name}: ")


def started(name: str, folder: Path, *prefix: str, memory: int | None = None) -> str:
    """Start a stage as a user does; return its line on what failed."""
    made = folder / "made"
    command = [sys.executable, "-m", f"stages.{name}", *limited.arguments(name, made, folder / "out")]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}

    def limit_memory() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, resource.RLIM_INFINITY))

    done = subprocess.run(
        [*prefix, *command],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=limit_memory,
    )
    return cause(name, Ended(done.returncode, done.stderr))


def test_memory_that_does_not_suffice_for_the_import_of_torch_is_one_line(tmp_path: Path) -> None:
    found = started("train", limited.project(tmp_path), memory=600_000_000)
    assert re.search(REASON["memory"] + ".*; raise the limit, or ", found)


@pytest.fixture
def bound_by_permissions() -> list[str]:
    """The command, to put before another one, under which permissions count for root, too."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("permissions do not count for root, and there is no setpriv")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


@pytest.mark.parametrize(("name", "path", "mode"), [("prepare", "out", 0o555), ("sample", "made/model.safetensors", 0)])
def test_a_folder_or_a_file_of_another_user_is_one_line(
    name: str, path: str, mode: int, bound_by_permissions: list[str], tmp_path: Path
) -> None:
    limited.project(tmp_path)
    for folder in ("out", "made"):
        (tmp_path / folder).mkdir()
    (tmp_path / "made/model.safetensors").touch()
    (tmp_path / path).chmod(mode)
    found = started(name, tmp_path, *bound_by_permissions)
    (tmp_path / path).chmod(0o755)
    named = tmp_path / path / "train.safetensors" if name == "prepare" else tmp_path / path
    subject = tmp_path / "out" if name == "prepare" else "it"
    start = (
        rf"{named}: there is no permission: {subject} belongs to user \w+, mode {mode:03o}, and this process runs as "
    )
    assert re.fullmatch(start + r"user \w+; change the owner or the mode \(chown, chmod\)", found)


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("kind", REASON)
def test_a_limit_is_one_line_and_without_it_the_same_command_gives_the_same_bytes(
    kind: str, name: str, made: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    folder = limited.project(request.getfixturevalue("disk") / "a" if kind == "full disk" else tmp_path / "a")
    shutil.copy(made / "tracking.db", folder)
    out = folder / "out"
    if name == "report":
        shutil.copytree(made, out, ignore=shutil.ignore_patterns("*.db", ".ckpt", "mlartifacts"))
    for path in OUTPUTS[name]:
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(b"previous")
    before = files(out)
    with limit(kind, name, folder) as limits:
        first = cause(name, limited.run(name, folder, made, out, limits))
        kept = files(folder / ".ckpt") if (folder / ".ckpt").exists() else {}
        second = cause(name, limited.run(name, folder, made, out, limits))
    print(f"| {name} | {kind} | {first}")
    named = "" if kind == "memory" else rf"{folder}/(out|\.ckpt)(/\w[\w.-]*)*"  # no temporary file
    for line in (first, second):
        assert re.fullmatch(named + REASON[kind] + ".*, then run the same command again: finished work is kept", line)
    after = files(out)
    assert after.keys() == before.keys()
    for path in OUTPUTS[name]:
        assert after[path] in (before[path], (made / path).read_bytes())
    again = files(folder / ".ckpt") if (folder / ".ckpt").exists() else {}
    assert {path: again.get(path) for path in kept if path.endswith(".safetensors")} == {
        path: kept[path] for path in kept if path.endswith(".safetensors")
    }
    ended = limited.run(name, folder, made, out)
    assert ended.status == 0, ended.errors
    for path in OUTPUTS[name]:
        assert (out / path).read_bytes() == (made / path).read_bytes()
    assert not [path for path in files(out) if Path(path).name.startswith(".")]


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def as_folder(name: str) -> Callable[[Path], object]:
    def replace(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir(parents=True)

    return replace


RESTORE = r"run the command in the root of the repository, or `git restore {0}`"
EXPECTED_FILE = r"there is a folder of this name where a file is expected; rename or remove it"
LACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no params.yaml": (
        without("params.yaml"),
        "params.yaml: No such file or directory; " + RESTORE.format("params.yaml"),
    ),
    "a folder params.yaml": (as_folder("params.yaml"), f"params.yaml: {EXPECTED_FILE}"),
    "no dvc.yaml": (without("dvc.yaml"), "dvc.yaml: No such file or directory; " + RESTORE.format("dvc.yaml")),
    "a broken dvc.yaml": (text("dvc.yaml", "stages: ["), r"dvc.yaml has no stages, .*: `git restore dvc.yaml`"),
    "no such stage": (text("dvc.yaml", "stages: {a: {}}"), r"dvc.yaml has no stage \w+: `git restore dvc.yaml`"),
    "a folder as output": (as_folder("out/train.csv"), rf"\S+/out/train.csv: {EXPECTED_FILE}"),
    "a file as folder": (
        text(".ckpt", ""),
        r"\S+: \S+/.ckpt is a file where a folder is expected; rename or remove it",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("lack", LACKS)
def test_what_a_stage_lacks_is_one_line(lack: str, made: Path, tmp_path: Path) -> None:
    folder = limited.project(tmp_path / "a")
    shutil.copy(made / "tracking.db", folder)
    make, reason = LACKS[lack]
    make(folder)
    assert re.fullmatch(reason, cause("train", limited.run("train", folder, made, folder / "out")))


@pytest.mark.slow
def test_a_broken_dvc_lock_does_not_stop_a_training(made: Path, tmp_path: Path) -> None:
    folder = limited.project(tmp_path / "a")
    shutil.copy(made / "tracking.db", folder)
    (folder / "dvc.lock").write_text("<<<<<<< HEAD\nschema: '2.0'\n=======\n")
    ended = limited.run("train", folder, made, folder / "out")
    assert ended.status == 0, ended.errors


@pytest.mark.slow
@pytest.mark.parametrize("path", ["x" * 260, "/".join(["y" * 200] * 25)])
def test_a_path_that_is_too_long_is_one_line(path: str, made: Path, tmp_path: Path) -> None:
    folder = limited.project(tmp_path / "a")
    found = cause("sample", limited.run("sample", folder, made, folder / path))
    assert re.fullmatch(r"/.{99}…: the path is too long: \d+ bytes, its longest name \d+, where most systems .*", found)
