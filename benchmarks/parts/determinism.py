"""The part `determinism`: the same training twice, and once killed and continued, has the same bytes.

As a program, `python -m benchmarks.parts.determinism FOLDER`, it is one such training.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import recipes
from benchmarks.parts import part as parts
from benchmarks.parts.part import Part
from ddpm import device as devices
from ddpm import files
from ddpm.data.batches import Batches
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.params import Params
from ddpm.training import checkpoint, loop
from ddpm.training.curve import LossCurve

_SECONDS = 60.0
_STEPS, _KILLED_AT, _EVERY = 40, 25, 10  # the training that is killed repeats five steps
_MINIATURE_OF = 5  # the miniature has this fraction of the steps


def run(part: Part) -> None:
    """Train in processes of their own and compare all that a checkpoint holds."""
    for precision in ("bf16",) if part.miniature else ("bf16", "fp32"):
        if precision in part.rows:
            continue
        part.require(_SECONDS)
        digests = {
            "first": _trained(part, precision, "first"),
            "second": _trained(part, precision, "second"),
            "continued": _trained(part, precision, "continued", killed_at=_steps(part.miniature, _KILLED_AT)),
        }
        part.add(
            precision,
            {
                "steps": _steps(part.miniature, _STEPS),
                "same_bytes_twice": digests["first"] == digests["second"],
                "same_bytes_killed_and_continued": digests["first"] == digests["continued"],
                "digest": digests["first"][:16],
            },
        )


def _trained(part: Part, precision: str, name: str, killed_at: int | None = None) -> str:
    """The digest of the last state of a training, which is killed once at a step if that is given."""
    folder = part.folder / "determinism" / f"{precision}-{name}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.parts.determinism", str(folder), "--precision", precision]
    command += ["--device", str(part.device), *(["--miniature"] if part.miniature else [])]
    if killed_at is not None:
        result = subprocess.run([*command, "--kill-at", str(killed_at)], cwd=recipes.ROOT)
        assert result.returncode == -signal.SIGKILL, f"the training was not killed but ended with {result.returncode}"
    subprocess.run(command, cwd=recipes.ROOT, check=True)
    digest = files.read_metadata(folder / "state.safetensors")["digest"]
    shutil.rmtree(folder)
    return str(digest)


def _steps(miniature: bool, steps: int) -> int:
    return steps // _MINIATURE_OF if miniature else steps


def train(params: Params, folder: Path, device: torch.device, every: int, kill_at: int | None) -> None:
    """Train from the state in the folder, if there is one, and write the state every few steps."""
    described = recipes.description(params)
    network = recipes.network(described).to(device)
    network.to(memory_format=devices.memory_format(device, params.train.precision))
    learner = loop.Learner.start(network, params.train)
    curve = LossCurve(1, device)
    state = folder / "state.safetensors"
    if state.is_file():
        checkpoint.load(state, learner, curve)
    denoiser = Denoiser(network, process.from_settings(params.diffusion, device), params.diffusion)
    batches = Batches(recipes.dataset(described), params.train, params.diffusion.value_range, device)
    for record in loop.train(learner, denoiser, batches, params.train):
        curve.add(record)
        if record.step % every == 0:
            curve.check()
            checkpoint.save(state, learner, curve, "benchmark")
        if record.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def main(argv: Sequence[str] | None = None) -> None:
    """Take the options of one training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--miniature", action="store_true")
    options = parser.parse_args(argv)
    device = torch.device(options.device)
    changes = {
        "train.steps": _steps(options.miniature, _STEPS),
        "train.warmup": 5,
        "train.precision": options.precision,
        "train.batch_size": 4 if options.miniature else 128,
        "runtime.device": options.device,
        "runtime.deterministic": True,
    }
    params = parts.params(options.miniature, changes)
    devices.prepare(params.runtime)
    train(params, options.folder, device, _steps(options.miniature, _EVERY), options.kill_at)


if __name__ == "__main__":
    main()
