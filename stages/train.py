"""Stage train: data/train.safetensors to models/model.safetensors and reports/train.csv."""

from stages import pipeline  # first: it notes the code before it is imported

# isort: split

import shutil
from pathlib import Path

import torch
from tqdm import tqdm

from ddpm import device, rng
from ddpm.data import dataset
from ddpm.data.batches import Batches
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network import modelfile
from ddpm.params import Params, load
from ddpm.reporting.curve import write as write_curve
from ddpm.training import checkpoint, loop
from ddpm.training.curve import COLUMNS, LossCurve
from stages import preview, resumable, tracking

# What a training may differ in and still be continued: the learning rate of a constant schedule knows no end.
_EXTENDABLE = {"constant": {"train.steps"}, "linear": set[str](), "cosine": set[str]()}


def train(params: Params, data: Path, model: Path, snapshots: Path, curve_file: Path) -> None:
    """Train from where the last attempt stopped; write the averaged weights, snapshots of them, and the loss curve."""
    settings, runtime = params.train, params.runtime
    where = device.prepare(runtime)
    images = dataset.read(data)
    description = modelfile.Description(params.diffusion, params.network, images.image_shape, images.classes)
    torch.manual_seed(rng.torch_seed(settings.seed, "weights"))
    network = description.build()
    machine = {"torch": torch.__version__, "device": where.type}
    if settings.init is not None:
        start = pipeline.data_root(runtime.data_root) / settings.init
        machine["init"] = modelfile.initialise(network, start)
        modelfile.compare(start, description, whole=settings.steps == 0)
    network.to(where).to(memory_format=device.memory_format(where, settings.precision))

    learner = loop.Learner.start(network, settings)
    curve = LossCurve(runtime.log_every, where)
    name = resumable.fingerprint("train", _EXTENDABLE[settings.learning_rate_decay], machine)
    with resumable.folder(name, runtime.resume) as state, tracking.live(params, images.digest) as run:
        if latest := state.latest(settings.steps):
            checkpoint.load(latest, learner, curve)
        forward = torch.compile(network) if runtime.compile else network
        denoiser = Denoiser(forward, process.from_settings(params.diffusion, where), params.diffusion)
        batches = Batches(images, settings, params.diffusion.value_range, where)
        with tqdm(total=settings.steps, initial=learner.step, desc="train", unit="step", mininterval=1) as bar:
            for record in loop.train(learner, denoiser, batches, settings):
                bar.update()
                if curve.add(record):
                    curve.check()
                    speed = settings.batch_size * (bar.format_dict["rate"] or 0)
                    bar.set_postfix({"loss": f"{curve.last()['loss']:.4f}", "img/s": f"{speed:.0f}"}, refresh=False)
                    run.log(curve.last(), images_per_second=speed)
                if record.step in settings.snapshots:
                    modelfile.save(state.snapshot(record.step), description, learner.average.network.state_dict())
                if record.step % runtime.checkpoint_every == 0 or record.step == settings.steps:
                    curve.check()
                    state.save(record.step, lambda path: checkpoint.save(path, learner, curve))
                if record.step % runtime.preview_every == 0:
                    picture = preview.grid(learner.average.network, description, where)
                    run.image(f"previews/{record.step:08d}.png", picture)
        modelfile.save(model, description, learner.average.network.state_dict())
        snapshots.mkdir(parents=True, exist_ok=True)
        for step in settings.snapshots:
            shutil.copy(state.snapshot(step), snapshots)
        write_curve(curve_file, curve.points(), COLUMNS)
        state.finish(settings.steps)


if __name__ == "__main__":
    with pipeline.running("train"):
        train(load(pipeline.PARAMS), *pipeline.paths("data", "model", "snapshots", "curve"))
