"""Find the commit whose code made a result."""

import re
from pathlib import Path

from ddpm.errors import UsageError
from lab.experiment import history, identity
from lab.experiment.history import Commit

_SHORTEST = 8  # characters of a digest


def find(digest: str, root: Path = Path()) -> Commit:
    """The newest commit with a digest of code, of which the first 8 characters suffice.

    Commits of the current branch come before all others. Raises `UsageError` if there is none.
    """
    if not re.fullmatch(rf"[0-9a-f]{{{_SHORTEST},64}}", digest):
        raise UsageError(
            f"{digest!r} is no digest of code: copy at least {_SHORTEST} characters of `code, sha256` in a report"
        )
    found = next((commit for commit in history.commits(root) if commit.code.startswith(digest)), None)
    if found is None:
        reason = "it was not committed, or its commit is not in this clone; `git fetch --all` fetches other branches"
        if identity.code_digest(root).startswith(digest):
            reason = "the files here have it, and are not committed"
        raise UsageError(f"no commit in this repository has the code {digest}: {reason}")
    return found
