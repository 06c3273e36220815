"""Stage sample: draw data/samples.safetensors from the model, and pictures of the process."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ddpm import processes
from ddpm.data import dataset
from ddpm.errors import FileError
from ddpm.network import modelfile
from ddpm.network.modelfile import Model
from ddpm.params import Params
from ddpm.sampling import blocks, pictures
from ddpm.sampling import samples as sample_files
from ddpm.sampling.samples import Samples
from lab import kept, stage


def sample(
    params: Params, model: Path, snapshots: Path, test: Path, samples: Path, snapshot_samples: Path, reports: Path
) -> None:
    """Draw `sample.count` images from the model and from each snapshot of its training.

    `reports` is the folder of the pictures, which show both directions of the process.
    """
    group, settings = processes.join(params.runtime), params.sample
    trained, held_out = modelfile.load(model, group.device, settings.precision), dataset.read(test)
    if held_out.image_shape != trained.description.image_shape:
        raise FileError(f"{test} has images of another shape than those of {model}", test)
    passes = settings.count * settings.steps
    compiling = stage.compiles("sample", params.runtime, group.device, trained.parameters, passes)
    trained = ready(trained, params, compiling)
    labels = blocks.labels(trained, settings)
    weights = sorted(path for path in snapshots.glob("*.safetensors") if path.stem.isdecimal())  # nobody's copies
    models = {"model": model} | {path.stem: path for path in weights}

    def draw(name: str, done: int) -> Iterator[dict[str, Tensor]]:
        drawing = trained
        if name != "model":
            drawing = ready(modelfile.load(models[name], group.device, settings.precision), params, compiling)
        return ({"images": batch} for batch in blocks.drawn(drawing, settings, labels, group, done))

    with kept.work("sample", params.runtime, group, models.values()) as work:
        rows = work.rows("sample", dict.fromkeys(models, settings.count), draw)
        if rows is None:
            return
        drawn, *earlier = (rows[name]["images"] for name in models)
        sample_files.write(samples, Samples(drawn, labels, settings.model_dump(), trained.digest))
        steps = (int(name) for name in models if name != "model")
        sample_files.write_snapshots(snapshot_samples, dict(zip(steps, earlier, strict=True)))

        real = held_out.images
        pictures.save_grid(drawn, reports / "samples.png")
        pictures.save_grid(spread(real, min(len(drawn), pictures.sheet_columns(real) ** 2)), reports / "real.png")
        pictures.save_denoising(trained, settings, labels, reports / "denoising.png")
        pictures.save_trajectory(trained, settings, labels, reports / "trajectory.gif")
        pictures.save_noising(trained, real, settings.seed, reports / "noising.png")


def ready(model: Model, params: Params, compiling: bool) -> Model:
    """The model, each evaluation of which is progress; if asked, compiled for all batches but perhaps the last."""
    (_, batch_size), *_ = blocks.batches(params.sample.count, params.sample.batch_size)
    model = model.compiled(params.runtime.deterministic, batch_size) if compiling else model
    return replace(model, denoiser=replace(model.denoiser, network=stage.beating(model.denoiser.network)))


def spread(real: Tensor, count: int) -> Tensor:
    """At most `count` images, evenly spread over their order, which may be by class."""
    return real[torch.linspace(0, len(real) - 1, min(count, len(real))).round().long()]


if __name__ == "__main__":
    stage.run(sample)
