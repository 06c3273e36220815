"""What CI runs: actions that are pinned, rights to read only, an audit of the locked packages."""

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.imports import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.y*ml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_pins_its_actions_by_commit_and_may_only_read(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert not [job for job in workflow["jobs"].values() if "permissions" in job]
    used = re.findall(r"uses: (.*)", text)
    assert len(used) == sum("uses" in step for job in workflow["jobs"].values() for step in job["steps"]) > 0
    assert not [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action)]


@pytest.fixture
def audit() -> ModuleType:
    """The script .ci/audit.py, as a module."""
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci/audit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def package(name: str, *fixed: str) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": list(fixed)}] * bool(fixed)}


UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "printed"),
    [
        ([package("a"), UNKNOWN], 0, "audit: no advisory for 1 packages\n"),
        ([package("a"), package("b", "1.1", "2")], 1, "b 1.0: CVE-1, fixed in 1.1, 2\n"),
        ([UNKNOWN], 0, "audit: nothing is compared: the index of advisories has none of the packages\n"),
        (None, 0, "audit: nothing is compared: no such host\n"),
    ],
)
def test_an_audit_fails_only_where_an_index_has_an_advisory(
    packages: list[dict[str, Any]] | None,
    status: int,
    printed: str,
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def audited(_: Path) -> dict[str, Any]:
        if packages is None:
            raise subprocess.CalledProcessError(1, ["pip"], stderr="Traceback\nno such host\n")
        return {"dependencies": packages}

    monkeypatch.setattr(audit, "audited", audited)
    if status:
        with pytest.raises(SystemExit, match="audit: 1 advisories for 2 packages"):
            audit.main()
    else:
        audit.main()
    assert capsys.readouterr().out == printed


def test_the_audit_reads_the_lock_of_all_packages(audit: ModuleType) -> None:
    def names(path: Path) -> set[str]:
        return set(re.findall(r"^([\w.-]+)==", path.read_text(encoding="utf-8"), re.MULTILINE))

    assert names(ROOT / "requirements.lock") < names(audit.LOCK)
