"""Commands without a repository, git, a commit or a readable file: one line each."""

import resource
import subprocess
from pathlib import Path

import pytest

from tests.commands import fails, run

RESTORE = "run the command in the root of the repository, or `git restore {0}`"
A_FOLDER = "there is a folder of this name where a file is expected; rename or remove it"
IN_REPOSITORY = ["recipe", "check", "data", "publish", "compare", "find 01234567", "clean", "ui"]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, which is in no repository."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", IN_REPOSITORY)
def test_outside_of_a_repository(command: str, empty: Path) -> None:
    message = f"ddpm: {empty} is not in an experiment repository: no parent folder has dvc.yaml and recipes/"
    assert fails(*command.split()) == message


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    "command",
    [
        "generate --model a --out b.png",
        "interpolate --model a --images b --images c --out d.png",
        "export --model a --out b",
        "import a --out b",
    ],
)
def test_a_missing_file(command: str) -> None:
    assert fails(*command.split()) == "ddpm: a does not exist"


@pytest.mark.usefixtures("repository")
def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fails("find", "01234567").startswith("ddpm: not a git repository")
    assert fails("find", "01234567").endswith("; use `git clone`, or run `git init`")
    monkeypatch.setenv("PATH", "/nowhere")
    assert fails("find", "01234567") == "ddpm: there is no program git: install it"
    assert run("recipe", "default").exit_code == 0


def test_without_a_commit(repository: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    assert fails("find", "01234567") == "ddpm: this git repository has no commit yet: `git commit` your files"
    assert run("recipe", "default").exit_code == 0


@pytest.mark.parametrize("command", ["check", "data", "publish", "compare", "ui"])
def test_params_yaml_that_is_missing_or_a_folder(command: str, repository: Path) -> None:
    (repository / "params.yaml").unlink()
    message = f"No such file or directory; {RESTORE.format('params.yaml')}"
    assert fails(command) == f"ddpm: params.yaml: {message}"
    (repository / "params.yaml").mkdir()
    assert fails(command) == f"ddpm: params.yaml: {A_FOLDER}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dvc.yaml", "stages: [", "dvc.yaml has no stages, or is not valid YAML (while parsing a flow node did not "),
        ("dvc.yaml", "a: 1", "dvc.yaml has no stages, or is not valid YAML ('stages'): `git restore dvc.yaml`"),
        ("dvc.lock", "a: [", "dvc.lock is damaged: `git restore dvc.lock` restores it"),
        ("recipes/default.yaml", "a: [", "recipes/default.yaml is not valid YAML: `git restore recipes/default.yaml`"),
        ("params.yaml", "a: [", "params.yaml is not valid YAML: while parsing a flow node "),
    ],
)
def test_a_file_that_is_not_valid_yaml(name: str, content: str, message: str, repository: Path) -> None:
    (repository / name).write_text(content)
    found = fails("check")
    assert found.startswith(f"ddpm: {message}")
    assert "\n" not in found


@pytest.mark.parametrize(("command", "out"), [("generate", "a.png"), ("generate", "b.safetensors"), ("export", "c")])
def test_an_output_that_is_larger_than_a_file_may_be(command: str, out: str, model_file: Path, empty: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        found = fails(command, "--model", model_file, "--out", empty / out).splitlines()[-1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found.startswith(f"ddpm: {empty / out}")
    assert " cannot be written: it has more bytes than a file may have (the limit is 100, ulimit -f)" in found
    assert not [path for path in empty.rglob("*") if path.is_file() and path != model_file]


def test_an_output_that_is_a_folder_or_has_too_long_a_name(model_file: Path, empty: Path) -> None:
    (empty / "out.png").mkdir()
    generate = ("generate", "--model", model_file, "--count", 1, "--steps", 1, "--out")
    assert fails(*generate, "out.png").endswith("out.png: a folder or a device has that name")
    found = fails(*generate, f"{300 * 'a'}.png")
    assert found.startswith(f"ddpm: {100 * 'a'}…: the path is too long: ")
