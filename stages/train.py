"""Stage train: train models/model.safetensors on data/train.safetensors; write reports/train.csv."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ddpm import device, processes, rng, tables
from ddpm.data import dataset
from ddpm.data.batches import Batches
from ddpm.data.dataset import Dataset
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network import modelfile
from ddpm.network.modelfile import Description
from ddpm.params import Params
from ddpm.processes import Group
from ddpm.training import checkpoint, gradients, loop
from ddpm.training.curve import COLUMNS, LossCurve, with_rewinds
from ddpm.training.rewinding import Steps
from lab import stage
from lab.experiment import dvcfile, journal, resume, speed, state
from lab.experiment.state import StateFolder
from lab.tracking.live import Live, live

# Parameters that may change when a training continues: a constant learning rate does not depend on train.steps.
_EXTENDABLE = {"constant": {"train.steps"}, "linear": set[str](), "cosine": set[str]()}


def train(params: Params, data: Path, model: Path, final_state: Path, snapshots: Path, curve: Path) -> None:
    """Train from the last saved state; write the averaged weights, the last state, snapshots, and the loss curve."""
    settings, runtime = params.train, params.runtime
    group = processes.join(runtime)
    images = dataset.read(data)
    training = _Training(params, images, group)
    group.agree(training.name)
    with stage.signals_deferred() as received:
        if group.rank > 0:
            training.follow(received)
            return
        with state.folder(training.name, runtime.resume) as saved, live(params, images.digest) as run:
            training.begin(group.from_first(resume.find(saved, params, final_state, snapshots)))
            training.lead(saved, run, received)
            training.save_model(model)
            training.save_state(final_state)
            saved.copy_snapshots(settings.snapshots, snapshots)
            training.write_curve(curve)
            saved.finish(settings.steps, runtime.keep_states)


class _Training:
    """A training on one of the processes that share it. Process 0 leads: it writes, tracks and draws progress."""

    def __init__(self, params: Params, images: Dataset, group: Group) -> None:
        """Build all that the steps need; print what is trained, and where."""
        settings, runtime, where = params.train, params.runtime, group.device
        self._params, self._group = params, group
        self._description = Description(params.diffusion, params.network, images.image_shape, images.classes)
        torch.manual_seed(rng.torch_seed(settings.seed, "weights"))
        network = self._description.build()
        machine = {"torch": torch.__version__, "device": where.type}
        if settings.init is not None:
            start = dvcfile.data_root(runtime.data_root) / settings.init
            machine["init"] = modelfile.initialise(network, start)
            modelfile.check_compatible(start, self._description, whole=settings.steps == 0)
        network.to(where).to(memory_format=device.memory_format(where, settings.precision))
        self._learner = loop.Learner.start(network, settings)
        self._averaged = modelfile.assemble(self._description, self._learner.average, "", where)
        self._losses = LossCurve(runtime.log_every, where)
        micros = gradients.shared(settings, runtime.deterministic, group)
        size = sum(weights.numel() for weights in network.parameters())
        work = f"{len(images.images):,} images, {settings.steps:,} steps of {settings.batch_size} images"
        stage.say(f"train: {journal.machine()['device']}, {_shared(params, group)}{size:,} parameters, {work}")
        module, gradient = gradients.of(network, micros, runtime.deterministic, group)
        forward: Callable[..., Tensor] = module
        if stage.compiles("train", runtime, where, size, 3 * settings.steps * settings.batch_size):
            forward = device.compiled_for_training(module, where, runtime.deterministic, settings.accumulate)
            machine["compiled"] = "true"  # auto decides by train.steps
        self.name = state.fingerprint("train", _EXTENDABLE[settings.learning_rate_decay], machine)
        denoiser = Denoiser(forward, process.from_settings(params.diffusion, where), params.diffusion)
        batches = Batches(images, settings, params.diffusion.value_range, where, micros)

        def take(rewinds: int) -> Iterator[loop.Record]:
            drawn = loop.after_rewinds(settings, rewinds)
            return loop.train(self._learner, denoiser, batches.redrawn(drawn), drawn, gradient)

        self._take = take

    def begin(self, latest: Path | None) -> None:
        """Continue from a state, if there is one."""
        if latest:
            checkpoint.load(latest, self._learner, self._losses)

    def follow(self, received: Callable[[], int]) -> None:
        """Take the steps from the state that process 0 has found, on a process that writes nothing."""
        self.begin(self._group.from_first(None))
        for _ in self._steps(None).records():
            if self._group.any(bool(received())):
                raise stage.Interrupted(received() or signal.SIGTERM)

    def lead(self, saved: StateFolder, run: Live, received: Callable[[], int]) -> None:
        """Take the steps, and save, log and show what is due after each of them."""
        settings, runtime, losses = self._params.train, self._params.runtime, self._losses
        with stage.bar("train", settings.steps, "step", self._learner.step) as bar:
            for taken, (record, ended) in enumerate(self._steps(saved).records(), 1):
                bar.update(record.step - bar.n)  # a rewind takes it back
                if ended:
                    rate = settings.batch_size * (bar.format_dict["rate"] or 0)
                    bar.set_postfix({"loss": f"{losses.last()['loss']:.4f}", "img/s": f"{rate:.0f}"}, refresh=False)
                    [point] = with_rewinds([losses.last()], self._learner.rewinds)
                    run.log(point, images_per_second=rate)
                if record.step in settings.snapshots:
                    self.save_model(saved.snapshot(record.step))
                stopping = self._group.any(bool(received()))
                due = record.step % runtime.checkpoint_every == 0 or record.step == settings.steps
                if due or (stopping and not losses.first_bad()):
                    saved.save(record.step, self.save_state)
                    seconds = bar.format_dict["elapsed"] / taken
                    speed.record(saved.path, self._params, self._group.device.type, seconds)
                if stopping:
                    raise stage.Interrupted(received() or signal.SIGTERM)
                if record.step % runtime.preview_every == 0:
                    run.preview(record.step, self._averaged)

    def save_model(self, path: Path) -> None:
        """Write the averaged weights."""
        modelfile.save(path, self._description, self._averaged.network.state_dict())

    def save_state(self, path: Path) -> None:
        """Write all that training changes, to continue from it."""
        checkpoint.save(path, self._learner, self._losses, self.name)

    def write_curve(self, path: Path) -> None:
        """Write the loss curve, with the number of rewinds if there were any."""
        columns = (*COLUMNS, "rewinds") if self._learner.rewinds else COLUMNS
        tables.write_points(path, with_rewinds(self._losses.points(), self._learner.rewinds), columns)

    def _steps(self, saved: StateFolder | None) -> Steps:
        settings, runtime = self._params.train, self._params.runtime
        return Steps(
            self._take, self._learner, self._losses, settings, runtime, self._group, saved, self.save_state, stage.say
        )


def _shared(params: Params, group: Group) -> str:
    """Text for people: the number of processes, if there are several, and how they add gradients."""
    if group.size == 1:
        return ""
    how = "the same bytes as one" if params.runtime.deterministic else "equal to one within rounding"
    return f"{group.size} processes ({how}), "


if __name__ == "__main__":
    stage.run(train)
