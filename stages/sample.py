"""Stage sample: draw data/samples.safetensors from the model, and pictures of the process."""

from pathlib import Path

import torch
from torch import Tensor

from ddpm import device
from ddpm.data import dataset
from ddpm.network import modelfile
from ddpm.network.modelfile import Model
from ddpm.params import Params
from ddpm.params import Sample as Settings
from ddpm.sampling import blocks, pictures
from ddpm.sampling import samples as sample_files
from ddpm.sampling.samples import Samples
from lab import stage


def sample(
    params: Params, model: Path, snapshots: Path, test: Path, samples: Path, snapshot_samples: Path, reports: Path
) -> None:
    """Draw `sample.count` images from the model and from each snapshot of its training.

    `reports` is the folder of the pictures, which show both directions of the process.
    """
    where, settings = device.prepare(params.runtime), params.sample
    trained = modelfile.load(model, where)
    labels = blocks.labels(trained, settings)
    drawn = draw(trained, settings, labels, "sample")
    sample_files.write(samples, Samples(drawn, labels, settings.model_dump(), trained.digest))
    earlier = {
        int(path.stem): draw(modelfile.load(path, where), settings, labels, f"sample {path.stem}")
        for path in sorted(snapshots.glob("*.safetensors"))
    }
    sample_files.write_snapshots(snapshot_samples, earlier)

    real = dataset.read(test).images
    pictures.save_grid(drawn, reports / "samples.png")
    pictures.save_grid(spread(real, min(len(drawn), pictures.sheet_columns(real) ** 2)), reports / "real.png")
    pictures.save_denoising(trained, settings, labels, reports / "denoising.png")
    pictures.save_trajectory(trained, settings, labels, reports / "trajectory.gif")
    pictures.save_noising(trained, real, settings.seed, reports / "noising.png")


def draw(model: Model, settings: Settings, labels: Tensor | None, description: str) -> Tensor:
    """Draw the samples of one model, uint8 (N, C, H, W), with a progress bar."""
    with stage.bar(description, settings.count, "img") as bar:
        return blocks.draw(model, settings, labels, bar.update)


def spread(real: Tensor, count: int) -> Tensor:
    """At most `count` images, evenly spread over their order, which may be by class."""
    return real[torch.linspace(0, len(real) - 1, min(count, len(real))).round().long()]


if __name__ == "__main__":
    stage.run(sample)
