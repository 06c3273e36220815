"""Stage train: train models/model.safetensors on data/train.safetensors; write reports/train.csv."""

import sys
from functools import partial
from pathlib import Path

import torch

from ddpm import device, rng, tables
from ddpm.data import dataset
from ddpm.data.batches import Batches
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network import modelfile
from ddpm.params import Params
from ddpm.training import checkpoint, loop
from ddpm.training.curve import COLUMNS, LossCurve
from lab import stage
from lab.experiment import dvcfile, journal, resume, state
from lab.tracking.live import live

# Parameters that may change when a training continues: a constant learning rate does not depend on train.steps.
_EXTENDABLE = {"constant": {"train.steps"}, "linear": set[str](), "cosine": set[str]()}


def train(params: Params, data: Path, model: Path, final_state: Path, snapshots: Path, curve: Path) -> None:
    """Train from the last saved state; write the averaged weights, the last state, snapshots, and the loss curve."""
    settings, runtime = params.train, params.runtime
    where = device.prepare(runtime)
    images = dataset.read(data)
    description = modelfile.Description(params.diffusion, params.network, images.image_shape, images.classes)
    torch.manual_seed(rng.torch_seed(settings.seed, "weights"))
    network = description.build()
    machine = {"torch": torch.__version__, "device": where.type}
    if settings.init is not None:
        start = dvcfile.data_root(runtime.data_root) / settings.init
        machine["init"] = modelfile.initialise(network, start)
        modelfile.check_compatible(start, description, whole=settings.steps == 0)
    network.to(where).to(memory_format=device.memory_format(where, settings.precision))
    size = sum(weights.numel() for weights in network.parameters())
    work = f"{len(images.images):,} images, {settings.steps:,} steps of {settings.batch_size} images"
    print(f"train: {journal.machine()['device']}, {size:,} parameters, {work}", file=sys.stderr, flush=True)

    learner = loop.Learner.start(network, settings)
    losses = LossCurve(runtime.log_every, where)
    name = state.fingerprint("train", _EXTENDABLE[settings.learning_rate_decay], machine)
    save = partial(checkpoint.save, learner=learner, curve=losses, training=name)
    with state.folder(name, runtime.resume) as saved, live(params, images.digest) as run:
        if latest := resume.find(saved, params, final_state, snapshots):
            checkpoint.load(latest, learner, losses)
        forward = torch.compile(network) if runtime.compile else network
        denoiser = Denoiser(forward, process.from_settings(params.diffusion, where), params.diffusion)
        batches = Batches(images, settings, params.diffusion.value_range, where)
        averaged = modelfile.assemble(description, learner.average, "", where)
        with stage.bar("train", settings.steps, "step", learner.step) as bar:
            for record in loop.train(learner, denoiser, batches, settings):
                bar.update()
                if losses.add(record):
                    losses.check()
                    speed = settings.batch_size * (bar.format_dict["rate"] or 0)
                    bar.set_postfix({"loss": f"{losses.last()['loss']:.4f}", "img/s": f"{speed:.0f}"}, refresh=False)
                    run.log(losses.last(), images_per_second=speed)
                if record.step in settings.snapshots:
                    modelfile.save(saved.snapshot(record.step), description, averaged.network.state_dict())
                if record.step % runtime.checkpoint_every == 0 or record.step == settings.steps:
                    losses.check()
                    saved.save(record.step, save)
                if record.step % runtime.preview_every == 0:
                    run.preview(record.step, averaged)
        modelfile.save(model, description, averaged.network.state_dict())
        save(final_state)
        saved.copy_snapshots(settings.snapshots, snapshots)
        tables.write_points(curve, losses.points(), COLUMNS)
        saved.finish(settings.steps, runtime.keep_states)


if __name__ == "__main__":
    stage.run(train)
