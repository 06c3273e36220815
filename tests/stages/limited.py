"""Stages run in processes with limits on file sizes and memory. The processes start with all modules imported."""

import importlib
import multiprocessing
import os
import resource
import shutil
import sys
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import yaml

from lab import stage
from lab.experiment import dvcfile
from tests.imports import ROOT

TIMEOUT = 60.0  # seconds
STAGES = ("prepare", "reference", "train", "sample", "evaluate", "report")
# The arguments of each stage: {made} has the inputs, {out} gets the outputs.
_ARGUMENTS = {
    "prepare": "--train {out}/train.safetensors --test {out}/test.safetensors",
    "reference": "--train {made}/train.safetensors --test {made}/test.safetensors "
    "--extractor {out}/extractor.safetensors --features {out}/reference.safetensors",
    "train": "--data {made}/train.safetensors --model {out}/model.safetensors --final-state {out}/state.safetensors "
    "--snapshots {out}/snapshots --curve {out}/train.csv",
    "sample": "--model {made}/model.safetensors --snapshots {made}/snapshots --test {made}/test.safetensors "
    "--samples {out}/samples.safetensors --snapshot-samples {out}/snapshot-samples.safetensors --reports {out}",
    "evaluate": "--model {made}/model.safetensors --samples {made}/samples.safetensors "
    "--snapshot-samples {made}/snapshot-samples.safetensors --data {made} --extractor {made}/extractor.safetensors "
    "--reference {made}/reference.safetensors --protocol {out}/protocol.json --reports {out}",
    "report": "--protocol {made}/protocol.json --reports {out} --defaults {root}/recipes/default.yaml",
}
_TENSORS = {
    "prepare": "train test",
    "reference": "extractor reference",
    "train": "model state snapshots/00000006",
    "sample": "samples snapshot-samples",
    "evaluate": "",
    "report": "",
}
_OTHERS = {
    "train": "snapshots/steps.json train.csv",
    "sample": "samples.png real.png denoising.png trajectory.gif noising.png",
    "evaluate": "protocol.json metrics.json neighbours.png likelihood.csv snapshots.csv classes.csv",
    "report": "report.md index.html loss.png",
}
OUTPUTS = {
    name: [*(f"{path}.safetensors" for path in _TENSORS[name].split()), *_OTHERS.get(name, "").split()]
    for name in STAGES
}
_TINY = {
    "data": {"image_size": 4},
    "diffusion": {"timesteps": 20},
    "network": {"channels": 16, "attention": []},
    "train": {"steps": 12, "batch_size": 512, "warmup": 2, "snapshots": [6]},
    "sample": {"count": 96, "batch_size": 96, "steps": 4},
    "evaluate": {"classifier": {"channels": 4, "steps": 20, "batch_size": 32, "learning_rate": 0.01}},
    "runtime": {"device": "cpu", "threads": 1, "checkpoint_every": 4, "preview_every": 6, "log_every": 5},
    "tracking": {"uri": "sqlite:///tracking.db"},
}
_SERVER = multiprocessing.get_context("forkserver")
_LATER = (
    "sklearn.datasets",
    "torch_fidelity",
    "torch_fidelity.metrics",
    "matplotlib.pyplot",
    "mlflow.tracking",
    "PIL.Image",
)
_SERVER.set_forkserver_preload([__name__, *(f"stages.{name}" for name in STAGES), *_LATER])


@dataclass(frozen=True)
class Limits:
    """What a process may use: bytes of a file, and bytes of memory beyond those at the start."""

    file_size: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a process has ended."""

    status: int
    errors: str


def settings() -> dict[str, dict[str, object]]:
    """A whole params.yaml whose stages take a second."""
    committed = yaml.safe_load((ROOT / "params.yaml").read_text())
    return committed | {section: committed[section] | part for section, part in _TINY.items()}


def project(folder: Path) -> Path:
    """Write the parameters and dvc.yaml into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(settings()))
    shutil.copy(ROOT / "dvc.yaml", folder)
    return folder


def arguments(name: str, made: Path, out: Path) -> list[str]:
    """The arguments of a stage with inputs in `made` and outputs in `out`."""
    return [word.format(made=made, out=out, root=ROOT) for word in _ARGUMENTS[name].split()]


def run(name: str, where: Path, made: Path, out: Path, limits: Limits | None = None) -> Ended:
    """Run a stage in the project at `where`, with the inputs in `made` and the outputs in `out`."""
    received, errors = _SERVER.Pipe(duplex=False)  # no file, whose size would be limited
    process = _SERVER.Process(target=_stage, args=(name, where, arguments(name, made, out), errors, limits or Limits()))
    process.start()
    errors.close()
    killer = threading.Timer(TIMEOUT, process.kill)
    killer.start()
    with os.fdopen(os.dup(received.fileno()), encoding="utf-8") as file:
        text = file.read()
    process.join()
    killer.cancel()
    return Ended(process.exitcode or 0, text)


def _stage(name: str, where: Path, words: list[str], errors: Connection, limits: Limits) -> None:
    os.dup2(errors.fileno(), 2)
    os.chdir(where)
    dvcfile.ROOT = where
    sys.argv = [name, *words]
    if limits.file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_size, resource.RLIM_INFINITY))
    if limits.memory is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        used = pages * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + limits.memory, resource.RLIM_INFINITY))
    stage.run(getattr(importlib.import_module(f"stages.{name}"), name))
