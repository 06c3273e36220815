"""Check params.yaml, with changes as `dvc exp run -S` makes them, and write nothing."""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps, to_hydra_overrides
from dvc.utils.serialize import load_yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ddpm import estimate, params
from ddpm.alternatives import in_use
from ddpm.errors import UsageError, no_such_key
from lab import capacity
from lab.experiment import dvcfile, speed


def check(changes: Sequence[str], defaults: Path) -> Iterator[str]:
    """Yield lines about params.yaml with the changes: it is usable, what differs from the defaults, the stages to run.

    A change may list several values, as for `dvc exp run --queue`. The lines about each experiment then leave out what
    differs from the defaults. Raises `UsageError` with the errors of all experiments.
    """
    described, errors = {}, []
    for one in _experiments(changes):
        name = f"{dvcfile.PARAMS} with {', '.join(one)}" if one else str(dvcfile.PARAMS)
        try:
            with _changed(one) as copy:
                checked = params.check(params.read(copy, name), name)
                values = load_yaml(copy)  # as DVC reads it: 1e-05 is a number
                described[name] = [*_differences(values, defaults), *_needs(checked), _stages(values)]
        except UsageError as error:
            errors.append(str(error))
    if errors:
        raise UsageError("\n".join(dict.fromkeys(errors)))
    for name, lines in described.items():
        yield from [f"{name} is usable", *(lines if len(described) == 1 else lines[-1:])]


def _experiments(changes: Sequence[str]) -> list[list[str]]:
    """The changes of each experiment."""
    given = [change.removeprefix(f"{dvcfile.PARAMS}:") for change in changes]
    try:
        if any(one.is_sweep_override() for one in to_hydra_overrides(given)):
            return [one["params"] for one in get_hydra_sweeps({"params": given})]
    except (HydraException, DvcException) as error:
        if any("=" not in one and not one.startswith("~") for one in given):
            raise UsageError("-S must be KEY=VALUE, such as train.steps=200") from error
        raise UsageError(f"-S must be KEY=VALUE: {error}") from error
    return [given]


@contextmanager
def _changed(changes: Sequence[str]) -> Iterator[Path]:
    """Yield a temporary copy of params.yaml with the changes. Raises `UsageError` for a change that DVC refuses."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copy(dvcfile.PARAMS, folder))
        for change in changes:
            try:
                apply_overrides(str(copy), [change])
            except (DvcException, OmegaConfBaseException) as error:
                raise UsageError(f"-S {change}: {_unknown(change) or error.__cause__ or error}") from error
        yield copy


def _unknown(change: str) -> str | None:
    """The rule that a change breaks whose key is not in params.yaml."""
    key = to_hydra_overrides([change])[0].key_or_group
    known = any(f"{one}.".startswith(f"{key}.") for one in dvcfile.flatten(dvcfile.parsed(dvcfile.PARAMS)))
    return None if known else no_such_key(key, params.Params)


def _differences(values: Mapping[str, Any], defaults: Path) -> Iterator[str]:
    """Lines for the settings that differ from the default recipe."""
    here, there, used = map(dvcfile.flatten, (values, _read(defaults), in_use(values)))
    changed = [key for key in here if here[key] != there.get(key)]
    yield f"differs from {defaults.as_posix()} in:" if changed else f"all settings are those of {defaults.as_posix()}"
    for key in changed:
        unused = here[key] is not None and used.get(key) is None
        note = "not in use" if unused else f"default: {json.dumps(there.get(key))}"
        yield f"  {key} = {json.dumps(here[key])} ({note})"


def _needs(chosen: params.Params) -> Iterator[str]:
    """Lines for what the experiment needs, as estimated: parameters, memory, disk, and time if a step was measured."""
    needs = estimate.experiment(chosen)
    stages = {name: need for name, need in needs.stages.items() if need.memory}
    gpu = capacity.gpu_memory() if chosen.runtime.device.startswith(("auto", "cuda")) else None
    available, beside = (gpu, 0) if gpu else (capacity.memory(), capacity.PROCESS)
    size, train = capacity.size, needs.stages["train"]
    parts = [f"{name} {size(beside + need.memory)}" for name, need in stages.items()]
    yield f"network: {needs.parameters:,} parameters"
    yield f"memory, about: {', '.join(parts)}; {'the GPU' if gpu else 'this machine'} has {size(available)}"
    optimizer = "weights, gradients, Adam's moments and the average"
    yield f"  of train: {size(train.weights)} {optimizer}, {size(train.batch)} activations of {train.images:,} images"
    for name, need in stages.items():
        if need.certain > available:
            yield f"  too little for {name}: lower {need.lower[need.weights > available]}"
    unknown = "" if needs.stages["prepare"].outputs else " and the images with their features"
    free = capacity.free_disk(dvcfile.ROOT)
    yield f"disk, about: {size(needs.disk)}{unknown}; {size(free)} are free"
    if needs.disk > free:
        largest = max(needs.stages.values(), key=lambda need: need.outputs + need.kept)
        yield f"  too little: lower {largest.lower[2]}"
    steps, last = chosen.train.steps, speed.measured(chosen)
    if steps and last:
        left = timedelta(seconds=round(last.seconds * (steps - last.done)))
        done = f", {last.done:,} of them done" if last.done else ""
        yield f"time of train: {left} for {steps:,} steps{done}; a step took {last.seconds:.3g} s when last measured"


def _read(path: Path) -> dict[str, Any]:
    """Read a YAML file as DVC does. Raises `UsageError` if it is not valid."""
    try:
        return dict(load_yaml(path))
    except (DvcException, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not valid YAML: `git restore {path}`") from error


def _stages(values: Mapping[str, Any]) -> str:
    """A line for the stages whose parameters are not those of dvc.lock, and the stages that depend on them."""
    recorded = _recorded(Path("dvc.lock"))
    stages, made = [], set[str]()
    for name, stage in dvcfile.stages().items():
        declared = dvcfile.declared_params(name, view=lambda _: values)
        if declared != recorded.get(name) or made.intersection(stage["deps"]):
            stages.append(name)
            outs = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
            made.update(path for out in outs for path in ([out] if isinstance(out, str) else out))
    return f"stages to run for these parameters: {', '.join(stages) or 'none'}"


def _recorded(path: Path) -> dict[str, Any]:
    """The parameters of each stage in dvc.lock, none if it does not exist. Raises `UsageError` if it is damaged."""
    if not path.exists():
        return {}
    try:
        stages = load_yaml(path)["stages"]
        return {name: stage.get("params", {}).get(str(dvcfile.PARAMS)) for name, stage in stages.items()}
    except (DvcException, LookupError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is damaged: `git restore {path}` restores it") from error
