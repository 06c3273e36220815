"""Stage sample: the model to data/samples.safetensors, and pictures of how images appear out of noise."""

from stages import pipeline  # first: it notes the code before it is imported

# isort: split

import math
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ddpm import device, images, rng, tensorfile
from ddpm.data import dataset
from ddpm.network import modelfile
from ddpm.network.modelfile import Model
from ddpm.params import Params, load
from ddpm.params import Sample as Settings
from ddpm.reporting import figures
from ddpm.sampling import blocks

SHOWN = 100  # samples in the grid
COLUMNS = 10  # of the grid, and times in the strips
FOLLOWED = 4  # images in the strips
MOVING = 9  # images in the animation, if they are small
FRAMES = 32  # of it
PIXELS = 1_000_000  # of all its frames together: some 200 kB of 8x8 images, and no more than 1 MB of any


def sample(
    params: Params,
    model_file: Path,
    snapshots: Path,
    test: Path,
    samples: Path,
    of_snapshots: Path,
    grid: Path,
    real: Path,
    denoising: Path,
    trajectory: Path,
    noising: Path,
) -> None:
    """Draw `sample.count` images from the model file's own network, and picture both directions of the process.

    As many are drawn from each snapshot of the training.
    """
    where = device.prepare(params.runtime)
    model = modelfile.load(model_file, where)
    drawn, asked = draw(model, params.sample, "sample")
    metadata = {"sample": params.sample.model_dump(), "model_digest": model.digest}
    tensorfile.write(samples, {"images": drawn} | ({} if asked is None else {"labels": asked}), metadata)
    earlier = {
        path.stem: draw(modelfile.load(path, where), params.sample, f"sample {path.stem}")[0]
        for path in sorted(snapshots.glob("*.safetensors"))
    }
    tensorfile.write(of_snapshots, earlier, metadata)
    of_test = dataset.read(test).images
    figures.save(figures.grid(drawn[:SHOWN], COLUMNS), grid)
    figures.save(figures.grid(spread(of_test, min(SHOWN, len(drawn))), COLUMNS), real)
    picture_denoising(model, params.sample, asked, denoising)
    animate_denoising(model, params.sample, asked, trajectory)
    picture_noising(model, of_test[:FOLLOWED].to(where), params.sample.seed, noising)


def draw(model: Model, settings: Settings, what: str) -> tuple[Tensor, Tensor | None]:
    """The samples of one model, uint8 (N, C, H, W), and under guidance the class asked of each, int64 (N,)."""
    asked = blocks.labels(model, settings)
    with tqdm(total=settings.count, desc=what, unit="img", mininterval=1) as bar:
        return blocks.draw(model, settings, asked, bar.update), asked


def spread(real: Tensor, count: int) -> Tensor:
    """So many of the images, or all, evenly over their order, which may be by class."""
    return real[torch.linspace(0, len(real) - 1, min(count, len(real))).round().long()]


def picture_denoising(model: Model, settings: Settings, asked: Tensor | None, path: Path) -> None:
    """x_t and the predicted x_0 of the first samples, at ten times of their chain."""
    states = blocks.milestones(model, settings, asked, min(FOLLOWED, settings.count), COLUMNS)
    _strip(path, "From noise to samples", model, [(s.t, s.x_t, s.x_0) for s in states])


def animate_denoising(model: Model, settings: Settings, asked: Tensor | None, path: Path) -> None:
    """x_t of the first samples along their chain; large ones are fewer, in fewer frames, for a small file."""
    each = math.prod(figures.grid(torch.zeros(1, *model.description.image_shape, dtype=torch.uint8), 1).size)
    fitting = min(max(PIXELS // (each * FRAMES), 1), MOVING, settings.count)
    count = math.isqrt(fitting) ** 2  # for a square
    states = blocks.milestones(model, settings, asked, count, min(max(PIXELS // (each * count), 2), FRAMES))
    shown = torch.stack([images.to_uint8(state.x_t, model.denoiser.value_range).cpu() for state in states])
    figures.animation(shown, figures.columns_of(count), path)


@torch.no_grad()
def picture_noising(model: Model, real: Tensor, seed: int, path: Path) -> None:
    """Real images noised at ten times, and what the network predicts of them there."""
    process, device = model.denoiser.process, real.device
    x_0 = images.to_float(real, model.denoiser.value_range)
    eps = process.prior(tuple(x_0.shape), rng.torch_generator(device, seed, "noising"))
    columns = []
    for time in torch.linspace(1, process.timesteps, COLUMNS).round().int().tolist():
        t = torch.full((len(x_0),), time, device=device)
        x_t = process.q_sample(x_0, t, eps)
        columns.append((time, x_t, model.denoiser(x_t, t, clip=True).x_0))
    _strip(path, "From test images to noise, and what the network sees in it", model, columns)


def _strip(path: Path, title: str, model: Model, columns: list[tuple[int, Tensor, Tensor]]) -> None:
    """Columns are (t, x_t, predicted x_0) with tensors (N, C, H, W); each image takes two rows."""
    rows = []
    for image in range(len(columns[0][1])):
        noisy = torch.stack([x_t[image] for _, x_t, _ in columns])
        predicted = torch.stack([x_0[image] for _, _, x_0 in columns])
        for label, row in (("$x_t$", noisy), (r"$\hat{x}_0$", predicted)):
            rows.append((label, images.to_uint8(row, model.denoiser.value_range).cpu()))
    figures.strip(path, title, [f"$t={t}$" for t, *_ in columns], rows)


if __name__ == "__main__":
    with pipeline.running("sample"):
        inputs = ("model", "snapshots", "test")
        outputs = ("samples", "snapshot-samples", "grid", "real", "denoising", "trajectory", "noising")
        sample(load(pipeline.PARAMS), *pipeline.paths(*inputs, *outputs))
