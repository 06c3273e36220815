"""What a run leaves that must not depend on interruptions: its files, and its record in MLflow."""

import hashlib
from pathlib import Path

from tests.pipeline.project import Project
from tests.pipeline.test_end_to_end import rows

_FOLDERS = ("data", "models", "reports")
# Measured anew by each attempt, or drawn while it trains: the speed, the load of the machine, times, previews.
_LIVE_METRICS = "key NOT LIKE 'system/%' AND key NOT LIKE '%images_per_second'"
_LIVE_TAGS = "key NOT LIKE 'seconds.%'"


def results(project: Project) -> dict[str, str]:
    """By name: the digest of every result and of dvc.lock, the status of each MLflow run, and all that it has logged.

    The times and speeds that MLflow records are left out.
    """
    files = [project.path / "dvc.lock", *(path for name in _FOLDERS for path in _files(project.path / name))]
    found = {path.relative_to(project.path).as_posix(): _digest(path) for path in files}
    for number, (run, status) in enumerate(rows(project, "SELECT run_uuid, status FROM runs ORDER BY start_time")):
        name = f"MLflow run {number}"
        of_run = f"WHERE run_uuid = '{run}'"
        found[name] = status
        for table, more in (("params", ""), ("tags", f"AND {_LIVE_TAGS}")):
            for key, value in rows(project, f"SELECT key, value FROM {table} {of_run} {more}"):
                found[f"{name}: {table}: {key}"] = value
        points = rows(project, f"SELECT key, step, value FROM metrics {of_run} AND {_LIVE_METRICS} ORDER BY key, step")
        for key in {key for key, _, _ in points}:
            found[f"{name}: metric {key}"] = str([point for point in points if point[0] == key])
        artifacts = project.path / "mlartifacts" / run / "artifacts"
        for path in _files(artifacts):
            if path.parent.name != "previews":
                found[f"{name}: {path.relative_to(artifacts).as_posix()}"] = _digest(path)
    return found


def leftovers(project: Project) -> list[Path]:
    """The temporary files that killed writers have left among the results."""
    return [path for name in _FOLDERS for path in (project.path / name).rglob(".*") if path.is_file()]


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """The names of the results that differ, are missing, or should not be there."""
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
