"""`ddpm find`: the commit of a digest of code."""

from pathlib import Path

import pytest

from lab.experiment import identity
from tests.commands import run
from tests.lab.experiment.test_history import commit
from tests.lab.experiment.test_identity import git
from tests.lab.tracking.repository import edit, repository


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder is a repository with one commit."""
    folder = repository(tmp_path)
    (folder / "recipes").mkdir(exist_ok=True)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "first")
    monkeypatch.chdir(folder)
    return folder


def test_find_prints_the_newest_commit_with_the_code(folder: Path) -> None:
    digest = identity.code_digest()
    edit(folder / "ddpm/rng.py", lambda text: text + "# edited\n")
    commit(folder, "second")
    edit(folder / "ddpm/rng.py", lambda text: text.removesuffix("# edited\n"))
    third = commit(folder, "third")
    for characters in (8, 12, 64):
        result = run("find", digest[:characters])
        assert result.exit_code == 0
        assert result.stdout.startswith(f"{third} 20")
        assert result.stdout.endswith(" third\n")


def test_find_explains_that_code_is_not_committed(folder: Path) -> None:
    edit(folder / "ddpm/rng.py", lambda text: text + "# edited\n")
    result = run("find", identity.code_digest())
    assert result.exit_code == 1
    assert "the files here have it, and are not committed" in result.stderr
    result = run("find", "0" * 64)
    assert "its commit is not in this clone" in result.stderr


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("digest", ["1234567", "g" * 8, "0" * 65, "code"])
def test_find_refuses_what_is_no_digest(digest: str) -> None:
    result = run("find", digest)
    assert result.exit_code == 1
    assert "copy at least 8 characters of `code, sha256` in a report" in result.stderr
