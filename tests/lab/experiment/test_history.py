"""The digest of the code of each commit."""

from pathlib import Path

import pytest

from ddpm.errors import UsageError
from lab.experiment import history, identity
from tests.lab.experiment.test_identity import git
from tests.lab.tracking.repository import edit, repository


def commit(folder: Path, message: str) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = repository(tmp_path)
    git(folder, "init", "-q", "-b", "main")
    commit(folder, "first")
    return folder


def test_each_commit_has_the_digest_that_its_files_had(folder: Path) -> None:
    digests = [identity.code_digest(folder)]
    edit(folder / "ddpm/training/loop.py", lambda text: text + "# edited\n")
    commit(folder, "edited: with spaces, and ✓")
    digests.append(identity.code_digest(folder))
    edit(folder / "dvc.yaml", lambda text: text.replace("      - ddpm/diffusion\n", ""))
    commit(folder, "fewer dependencies")
    digests.append(identity.code_digest(folder))
    (folder / "ddpm/rng.py").unlink()
    commit(folder, "a file less")
    digests.append(identity.code_digest(folder))
    found = list(history.commits(folder))
    assert [one.code for one in found] == digests[::-1]
    assert len(set(digests)) == 4
    assert found[2].subject == "edited: with spaces, and ✓"


def test_commits_that_change_no_code_are_skipped(folder: Path) -> None:
    first = git(folder, "rev-parse", "HEAD")
    edit(folder / "params.yaml", lambda text: text + "# edited\n")
    commit(folder, "parameters only")
    assert [one.id for one in history.commits(folder)] == [first]


def test_commits_of_the_branch_come_before_those_of_experiments(folder: Path) -> None:
    first = git(folder, "rev-parse", "HEAD")
    edit(folder / "ddpm/rng.py", lambda text: text + "# edited\n")
    second = commit(folder, "an experiment")
    git(folder, "update-ref", f"refs/exps/aa/{'1' * 38}/name", second)
    git(folder, "reset", "-q", "--hard", first)
    assert [one.id for one in history.commits(folder)] == [first, second]


def test_without_git_there_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a git repository"):
        next(history.commits(tmp_path))


def test_a_commit_with_a_broken_dvc_yaml_is_skipped(folder: Path) -> None:
    first = git(folder, "rev-parse", "HEAD")
    for text in ("<<<<<<< HEAD\n", "stages: 3\n", "other: {}\n", "stages:\n  train: [\n"):
        (folder / "dvc.yaml").write_text(text)
        commit(folder, "broken")
    assert [one.id for one in history.commits(folder)] == [first]
