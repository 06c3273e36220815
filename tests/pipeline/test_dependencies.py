"""dvc.yaml depends on exactly what can change a stage's outputs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.imports import ROOT, imported, path_of

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
OUTS = ("outs", "plots", "metrics")
# They can change no output: the schema holds no defaults, tracking and previews only look, the others only guard.
EXEMPT = {"ddpm/params.py", "stages/tracking.py", "stages/preview.py", "stages/pipeline.py", "stages/resumable.py"}


def code_needed(stage: str) -> set[str]:
    """The files that the stage's module imports, without what only exempt modules import."""
    seen: set[str] = set()
    waiting = [f"stages.{stage}"]
    while waiting:
        module = waiting.pop()
        path = str(path_of(module))
        if path in seen or path in EXEMPT:
            continue
        seen.add(path)
        waiting += imported(module)
    return {path for path in seen if Path(path).name != "__init__.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_it_imports(stage: str) -> None:
    declared = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("ddpm", "stages"))]
    uncovered = {path for path in code_needed(stage) if not any(covers(dep, path) for dep in declared)}
    assert not uncovered


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_no_code_that_it_does_not_import(stage: str) -> None:
    declared = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("ddpm", "stages"))]
    idle = {dep for dep in declared if not any(covers(dep, path) for path in code_needed(stage))}
    assert not idle


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_of_a_command_is_declared(stage: str) -> None:
    definition = STAGES[stage]
    outs = [out if isinstance(out, str) else next(iter(out)) for kind in OUTS for out in definition.get(kind, [])]
    words = definition["cmd"].split()
    assert {word for word in words if "/" in word} == {
        path for path in [*definition["deps"], *outs] if not path.endswith(".py") and Path(path).suffix
    }


def covers(dependency: str, path: str) -> bool:
    return path == dependency or path.startswith(dependency + "/")


def test_params_that_a_stage_declares_exist() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for definition in STAGES.values():
        for key in definition["params"]:
            value = params
            for part in key.split("."):
                value = value[part]


def test_the_committed_lock_has_no_absolute_path() -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())
    paths = [entry["path"] for stage in lock["stages"].values() for kind in ("deps", "outs") for entry in stage[kind]]
    assert paths
    assert not [path for path in paths if Path(path).is_absolute() or path.startswith("..")]
