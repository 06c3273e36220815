"""Measure what tracking costs: train the default recipe with and without MLflow, in turns.

python -m benchmarks.tracking --steps 500 --rounds 5

Prints the ratio of the two durations of each round, and the median ratio. The store is a new SQLite database, which
exists before the first measurement.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
import yaml

from ddpm import device, params, rng
from ddpm.data import dataset
from ddpm.data.batches import Batches
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network import modelfile
from ddpm.params import Params
from ddpm.training import loop
from ddpm.training.curve import LossCurve
from lab.commands import recipe
from lab.experiment import dvcfile
from lab.tracking import live

ROOT = Path(__file__).parent.parent


def seconds(settings: Params, data: Path, tracked: bool) -> float:
    """The duration of the optimizer steps, with a point of the loss curve and a preview where the stage has them."""
    where = device.prepare(settings.runtime)
    images = dataset.read(data)
    description = modelfile.Description(settings.diffusion, settings.network, images.image_shape, images.classes)
    torch.manual_seed(rng.torch_seed(settings.train.seed, "weights"))
    learner = loop.Learner.start(description.build().to(where), settings.train)
    denoiser = Denoiser(learner.network, process.from_settings(settings.diffusion, where), settings.diffusion)
    batches = Batches(images, settings.train, settings.diffusion.value_range, where)
    curve = LossCurve(settings.runtime.log_every, where)
    model = modelfile.assemble(description, learner.average, "", where)
    name = str(time.perf_counter())  # every round is a separate run
    with live.live(settings, name) if tracked else nullcontext() as run:
        begin = time.perf_counter()
        for record in loop.train(learner, denoiser, batches, settings.train):
            if curve.add(record) and run is not None:
                run.log(curve.last(), images_per_second=1.0)
            if run is not None and record.step % settings.runtime.preview_every == 0:
                run.preview(record.step, model)
        return time.perf_counter() - begin


def run(argv: Sequence[str] | None = None) -> None:
    """Alternate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=ROOT / "data/train.safetensors", help="as stage prepare writes it")
    arguments = parser.parse_args(argv)
    values = yaml.safe_load(recipe.compose("default", ROOT / "recipes"))
    values["train"]["steps"] = arguments.steps
    settings, data = params.check(values), arguments.data.resolve()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        dvcfile.ROOT = Path(folder)
        seconds(settings, data, tracked=True)  # creates the database, imports MLflow, and warms up
        ratios = []
        for number in range(arguments.rounds):
            both = {tracked: seconds(settings, data, tracked) for tracked in ((True, False), (False, True))[number % 2]}
            ratios.append(both[True] / both[False])
            print(f"{both[False]:6.2f} s without, {both[True]:6.2f} s with: ratio {ratios[-1]:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    run()
