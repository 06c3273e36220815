"""Stage train: train models/model.safetensors on data/train.safetensors; write reports/train.csv."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ddpm import device, processes, rng, tables
from ddpm.data import dataset
from ddpm.data.batches import Batches
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network import modelfile
from ddpm.params import Params
from ddpm.processes import Group
from ddpm.training import checkpoint, gradients, loop
from ddpm.training.curve import COLUMNS, LossCurve, with_rewinds
from ddpm.training.rewinding import Steps
from lab import stage
from lab.experiment import dvcfile, journal, resume, speed, state
from lab.tracking.live import live

# Parameters that may change when a training continues: a constant learning rate does not depend on train.steps.
_EXTENDABLE = {"constant": {"train.steps"}, "linear": set[str](), "cosine": set[str]()}


def train(params: Params, data: Path, model: Path, final_state: Path, snapshots: Path, curve: Path) -> None:
    """Train from the last saved state; write the averaged weights, the last state, snapshots, and the loss curve."""
    settings, runtime = params.train, params.runtime
    group = processes.join(runtime)
    where = group.device
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
    learner = loop.Learner.start(network, settings)
    losses = LossCurve(runtime.log_every, where)
    micros = gradients.shared(settings, runtime.deterministic, group)
    size = sum(weights.numel() for weights in network.parameters())
    work = f"{len(images.images):,} images, {settings.steps:,} steps of {settings.batch_size} images"
    stage.say(f"train: {journal.machine()['device']}, {_shared(params, group)}{size:,} parameters, {work}")
    module, gradient = gradients.of(network, micros, runtime.deterministic, group)
    forward: Callable[..., Tensor] = module
    if stage.compiles("train", runtime, where, size, 3 * settings.steps * settings.batch_size):
        forward = device.compiled_for_training(module, where, runtime.deterministic, settings.accumulate)
        machine["compiled"] = "true"  # auto decides by train.steps
    name = state.fingerprint("train", _EXTENDABLE[settings.learning_rate_decay], machine)
    denoiser = Denoiser(forward, process.from_settings(params.diffusion, where), params.diffusion)
    batches = Batches(images, settings, params.diffusion.value_range, where, micros)

    def take(rewinds: int) -> Iterator[loop.Record]:
        drawn = loop.after_rewinds(settings, rewinds)
        return loop.train(learner, denoiser, batches.redrawn(drawn), drawn, gradient)

    group.agree(name)
    save = partial(checkpoint.save, learner=learner, curve=losses, training=name)
    steps = partial(Steps, take, learner, losses, settings, runtime, group)

    with stage.signals_deferred() as received:
        if group.rank > 0:
            _follow(steps(None, save, stage.say), received)
            return
        with state.folder(name, runtime.resume) as saved, live(params, images.digest) as run:
            latest = group.from_first(resume.find(saved, params, final_state, snapshots))
            if latest:
                checkpoint.load(latest, learner, losses)
            averaged = modelfile.assemble(description, learner.average, "", where)
            with stage.bar("train", settings.steps, "step", learner.step) as bar:
                for record, ended in steps(saved, save, stage.say).records():
                    bar.update(record.step - bar.n)  # a rewind takes it back
                    if ended:
                        rate = settings.batch_size * (bar.format_dict["rate"] or 0)
                        shown = {"loss": f"{losses.last()['loss']:.4f}", "img/s": f"{rate:.0f}"}
                        bar.set_postfix(shown, refresh=False)
                        [point] = with_rewinds([losses.last()], learner.rewinds)
                        run.log(point, images_per_second=rate)
                    if record.step in settings.snapshots:
                        modelfile.save(saved.snapshot(record.step), description, averaged.network.state_dict())
                    stopping = group.any(bool(received()))
                    due = record.step % runtime.checkpoint_every == 0 or record.step == settings.steps
                    if due or (stopping and not losses.first_bad()):
                        saved.save(record.step, save)
                        taken = max(bar.n - bar.initial, 1)  # a rewind may take it back to the start
                        speed.record(saved.path, params, where.type, bar.format_dict["elapsed"] / taken)
                    if stopping:
                        raise stage.Interrupted(received() or signal.SIGTERM)
                    if record.step % runtime.preview_every == 0:
                        run.preview(record.step, averaged)
            modelfile.save(model, description, averaged.network.state_dict())
            save(final_state)
            saved.copy_snapshots(settings.snapshots, snapshots)
            columns = (*COLUMNS, "rewinds") if learner.rewinds else COLUMNS
            tables.write_points(curve, with_rewinds(losses.points(), learner.rewinds), columns)
            saved.finish(settings.steps, runtime.keep_states)


def _follow(steps: Steps, received: Callable[[], int]) -> None:
    """Take the steps from the state that process 0 has found, on a process that writes nothing."""
    group = steps.group
    latest: Path | None = group.from_first(None)
    if latest:
        checkpoint.load(latest, steps.learner, steps.losses)
    for _ in steps.records():
        if group.any(bool(received())):
            raise stage.Interrupted(received() or signal.SIGTERM)


def _shared(params: Params, group: Group) -> str:
    """Text for people: the number of processes, if there are several, and how they add gradients."""
    if group.size == 1:
        return ""
    how = "the same bytes as one" if params.runtime.deterministic else "equal to one within rounding"
    return f"{group.size} processes ({how}), "


if __name__ == "__main__":
    stage.run(train)
