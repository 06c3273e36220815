"""The part `training`: a real training of recipe cifar10-jpeg, its samples, its loss curve and its metrics."""

import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import ours, results, timing
from benchmarks.parts import measures, speeds
from benchmarks.parts.part import OutOfTimeError, Part
from ddpm import device as devices
from ddpm import figures, files, rng, tables
from ddpm.data import dataset, sources
from ddpm.data.batches import Batches
from ddpm.data.pack import pack
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network import modelfile
from ddpm.network.modelfile import Description
from ddpm.params import Params
from ddpm.sampling import blocks, pictures
from ddpm.sampling import samples as sample_files
from ddpm.sampling.samples import Samples
from ddpm.training import checkpoint, loop
from ddpm.training.curve import COLUMNS, LossCurve

_CHANGES = {  # of the recipe, for a training of minutes instead of days
    "train.warmup": 1000,
    "train.ema_decay": 0.999,
    "train.precision": "bf16",
    "train.steps": ours.ENDLESS,
    "runtime.deterministic": False,
    "runtime.log_every": 100,
}
_SMALL = {"train.batch_size": 8, "train.warmup": 2, "runtime.log_every": 2}
_EVALUATION = 150.0  # seconds for samples and metrics
_SAVED_EVERY = 60.0  # seconds between checkpoints
_LAST = 10.0  # seconds to write the last one
_COUNT, _STEPS, _BATCH = 10_000, 50, 512  # samples, network evaluations of each, and images in a batch
_STEPS_OF_MINIATURE = 6


def run(part: Part) -> None:
    """Train until the part's time for it is over, then sample and measure."""
    if part.data is None:
        part.add("training", {"skipped": "no images: give --data FILE, such as cifar10-jpeg.zip"})
        return
    folder = part.folder / "training"
    own = {"data.path": part.data.name, "data.digest": None, "runtime.device": str(part.device)}
    params = part.params({**_CHANGES, **(_SMALL if part.miniature else {}), **own}, "cifar10-jpeg")
    devices.prepare(params.runtime)
    _pack(part, params, folder)
    train = dataset.read(folder / "train.safetensors")
    described = Description(params.diffusion, params.network, train.image_shape, train.classes)
    model = folder / "model.safetensors"
    if not model.is_file():
        _train(part, params, described, train, folder)
    part.require(20)
    if "samples" not in part.rows:
        _sample(part, params, folder)
    part.require(20)
    if "metrics" not in part.rows:
        measures.measure(part, params, folder)


def _pack(part: Part, params: Params, folder: Path) -> None:
    assert part.data is not None
    paths = [folder / f"{name}.safetensors" for name in ("train", "test")]
    if all(path.is_file() for path in paths):
        return
    part.require(60)
    begin = time.perf_counter()
    for split, path in zip(sources.load(params.data, part.data.parent), paths, strict=True):
        pack(split, params.data, path)
    part.add("data", {"seconds": round(time.perf_counter() - begin, 1)})


def _train(part: Part, params: Params, described: Description, train: dataset.Dataset, folder: Path) -> None:
    """Continue the training. Raises `OutOfTimeError` if this run has no time left for it."""
    settings, device = params.train, part.device
    progress = _progress(folder, part, settings.batch_size)
    torch.manual_seed(rng.torch_seed(settings.seed, "weights"))
    network = described.build().to(device)
    network.to(memory_format=devices.memory_format(device, settings.precision))
    learner = loop.Learner.start(network, settings)
    curve = LossCurve(params.runtime.log_every, device)
    state = folder / "state.safetensors"
    if state.is_file():
        checkpoint.load(state, learner, curve)
    forward = process.from_settings(params.diffusion, device)
    denoiser = Denoiser(ours.for_training(network, params, device, progress["mode"]), forward, params.diffusion)
    batches = Batches(train, settings, params.diffusion.value_range, device)
    before, begin = progress["seconds"], time.perf_counter()
    saved, goal = begin, part.limit - _EVALUATION

    def save() -> None:
        curve.check()
        checkpoint.save(state, learner, curve, "benchmark")
        progress.update(seconds=before + time.perf_counter() - begin, step=learner.step)
        files.write_text(folder / "progress.json", json.dumps(progress))

    done = part.earlier >= goal
    steps = loop.train(learner, denoiser, batches, settings)
    while not done:
        record = next(steps)
        curve.add(record)
        if part.miniature:
            done = record.step >= _STEPS_OF_MINIATURE
        elif record.step % 50 == 0:
            timing.synchronise(device)  # otherwise the host runs ahead, and the clock says nothing
            done = part.seconds >= goal
        now = time.perf_counter()
        if not done and (part.until - time.time() < _LAST and not part.miniature):
            save()
            part.add("training", _result(progress, settings.batch_size, curve) | {"state": "continues"})
            raise OutOfTimeError(for_good=False)
        if now - saved > _SAVED_EVERY or part.miniature:
            save()
            saved = time.perf_counter()
    save()
    points = curve.points()
    tables.write_points(folder / "loss.csv", points, COLUMNS)
    part.add("training", _result(progress, settings.batch_size, curve))
    part.add("loss curve", _picture(folder / "loss.png", lambda path: figures.loss_curve(points, [], {}, path)))
    modelfile.save(folder / "model.safetensors", described, learner.average.state_dict())


def _progress(folder: Path, part: Part, batch: int) -> dict[str, Any]:
    """The seconds and steps of earlier runs, and the mode that the first of them chose."""
    path = folder / "progress.json"
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    return {"mode": speeds.fastest_mode(part.folder, batch), "seconds": 0.0, "step": 0}


def _result(progress: dict[str, Any], batch: int, curve: LossCurve) -> dict[str, Any]:
    images = progress["step"] * batch
    return {
        "mode": progress["mode"],
        "steps": progress["step"],
        "batch": batch,
        "images": images,
        "seconds": round(progress["seconds"], 1),
        "images_per_second": round(images / max(progress["seconds"], 1e-9), 1),
        "loss": round(curve.points()[-1]["loss"], 5),
    }


def _sample(part: Part, params: Params, folder: Path) -> None:
    count, steps, batch = (16, 2, 16) if part.miniature else (_COUNT, _STEPS, _BATCH)
    loaded = modelfile.load(folder / "model.safetensors", part.device)
    model = ours.model(loaded.description, loaded.network, part.device, "bf16")
    settings = ours.chain(params, count, steps, "bf16").model_copy(update={"batch_size": batch})
    begin = time.perf_counter()
    drawn: Tensor = blocks.draw(model, settings)
    seconds = time.perf_counter() - begin
    sample_files.write(folder / "samples.safetensors", Samples(drawn, None, settings.model_dump(), loaded.digest))
    part.add("grid", _picture(folder / "samples.png", lambda path: pictures.save_grid(drawn, path)))
    evaluations = round(count * steps / seconds)
    part.add("samples", {"count": count, "sampler": f"DDIM, {steps} steps", "evaluations_per_second": evaluations})


def _picture(path: Path, write: Any) -> dict[str, str]:
    """Write a picture, unless the library for it is missing."""
    try:
        write(path)
    except ModuleNotFoundError as error:
        results.say(f"{path.name} is left out: {error}")
        return {"skipped": str(error)}
    return {"file": path.name}
