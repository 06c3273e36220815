"""The deps and params of each stage in dvc.yaml are exactly those that can change its outputs."""

import ast
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.experiment.dvcfile import flatten
from tests.imports import ROOT, imported, path_of

STAGES: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
OUTS = ("outs", "plots", "metrics")
# These modules cannot change an output: the schema has no defaults, and lab only surrounds the computation. The report
# does depend on lab, which holds its pages.
EXEMPT = {stage: ("ddpm/params.py",) if stage == "report" else ("ddpm/params.py", "lab/") for stage in STAGES}


def code_needed(stage: str) -> set[str]:
    """The files that the stage's module imports, except those that only exempt modules import."""
    seen: set[str] = set()
    waiting = [f"stages.{stage}"]
    while waiting:
        module = waiting.pop()
        path = str(path_of(module))
        if path in seen or path.startswith(EXEMPT[stage]):
            continue
        seen.add(path)
        waiting += imported(module)
    # ddpm/params.py, which is exempt, gives every stage its settings through this module, which changes values.
    return {path for path in seen if Path(path).name != "__init__.py"} | {"ddpm/alternatives.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_that_it_imports(stage: str) -> None:
    declared = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("ddpm", "lab", "stages"))]
    uncovered = {path for path in code_needed(stage) if not any(covers(dep, path) for dep in declared)}
    assert not uncovered


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_no_code_that_it_does_not_import(stage: str) -> None:
    declared = [dep for dep in STAGES[stage]["deps"] if dep.startswith(("ddpm", "lab", "stages"))]
    unused = {dep for dep in declared if not any(covers(dep, path) for path in code_needed(stage))}
    assert not unused


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_of_a_command_is_declared(stage: str) -> None:
    definition = STAGES[stage]
    outs = [out if isinstance(out, str) else next(iter(out)) for kind in OUTS for out in definition.get(kind, [])]
    declared = [path for path in [*definition["deps"], *outs] if not path.startswith(("ddpm", "lab", "stages"))]
    words = definition["cmd"].split()
    arguments = [argument for option, argument in pairwise(words) if option.startswith("--")]
    assert not [path for path in declared if not any(covers(argument, path) for argument in arguments)]
    assert not [argument for argument in arguments if not any(covers(argument, path) for path in declared)]


def test_the_report_depends_on_all_code() -> None:
    """The report shows the fingerprint of the experiment, which includes all code."""
    assert {"ddpm", "lab", "stages"} <= set(STAGES["report"]["deps"])


def test_only_the_report_depends_on_metrics_reported_elsewhere() -> None:
    assert [name for name, stage in STAGES.items() if "reported" in stage["params"]] == ["report"]


def covers(dependency: str, path: str) -> bool:
    return path == dependency or path.startswith(dependency + "/")


def test_declared_params_exist() -> None:
    params = flatten(yaml.safe_load((ROOT / "params.yaml").read_text()))
    declared = [key for definition in STAGES.values() for key in definition["params"]]
    assert not [key for key in declared if not any(f"{known}.".startswith(f"{key}.") for known in params)]


def test_the_committed_lock_has_no_absolute_path() -> None:
    lock = yaml.safe_load((ROOT / "dvc.lock").read_text())
    paths = [entry["path"] for stage in lock["stages"].values() for kind in ("deps", "outs") for entry in stage[kind]]
    assert paths
    assert not [path for path in paths if Path(path).is_absolute() or path.startswith("..")]


# These settings choose where and how the work is done; they change no byte on the same kind of machine.
FREE_RUNTIME = {"device", "data_root", "resume", "checkpoint_every", "keep_states", "stall_minutes", "preview_every"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_declares_all_parameters_that_it_reads(stage: str) -> None:
    declared = set(STAGES[stage]["params"])
    read = parameters_read(ROOT / f"stages/{stage}.py")
    undeclared = {
        key
        for key in read
        if not {".".join(key.split(".")[:depth]) for depth in range(1, 4)} & declared
        and not any(known.startswith(key + ".") for known in declared)
        and key not in {f"runtime.{name}" for name in FREE_RUNTIME} | {"runtime", "tracking"}
    }
    assert not undeclared
    assert read or stage == "report"


def parameters_read(path: Path) -> set[str]:
    """Every `params.section.key` in the source of a stage, also through a variable that holds a section."""
    tree = ast.parse(path.read_text())
    aliases = {"params": ""}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Tuple)
            and isinstance(node.value, ast.Tuple)
        ):
            pairs = list(zip(node.targets[0].elts, node.value.elts, strict=True))
        elif isinstance(node, ast.Assign):
            pairs = [(node.targets[0], node.value)]
        else:
            continue
        for target, value in pairs:
            if isinstance(target, ast.Name) and ast.unparse(value).startswith("params."):
                aliases[target.id] = ast.unparse(value).removeprefix("params.") + "."
    chains = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    split = [(chain.split(".")[0], ".".join(chain.split(".")[1:])) for chain in chains]
    return {
        aliases[head] + tail for head, tail in split if head in aliases and "(" not in tail and tail != "model_dump"
    }
