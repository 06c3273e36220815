"""Measure memory and waiting for input with data larger than memory.

Make a packed data set of 64x64 RGB images, then run, each in its own process and with the file not in the page cache:
steps of training and reading without training, the features of stage reference, and the metrics and neighbours of stage
evaluate. A cheap random network stands in for the extractor. The table gives the peak of the resident memory (VmHWM of
/proc/self/status, which includes the pages of mapped files), images/s, and for training the share of a step spent in
`Batches.get`, which reads, converts and copies to the device.

python -m benchmarks.data --gigabytes 12 --folder /data/scratch
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import recipes
from ddpm import device as devices
from ddpm import files, rng
from ddpm.data import dataset
from ddpm.data.batches import Batches
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.evaluation import features as feature_files
from ddpm.evaluation import fidelity, judge
from ddpm.evaluation.extractor import Extractor
from ddpm.evaluation.features import Features, Reference
from ddpm.network import modelfile
from ddpm.params import Params, Runtime
from ddpm.processes import Group
from ddpm.training import loop
from lab.experiment.rows import Rows

SHAPE = (3, 64, 64)
HELD_OUT = 1000  # images of the test split, and samples
LOGITS = 10
GREYS = 2**24 + 3  # random bytes from which the images are cut, no multiple of the size of an image
READ = 50_000  # images that are read without training


class RandomFeatures(nn.Module):
    """Random features and logits of the images reduced to 8x8: uint8 (N, 3, H, W) to (N, width) and (N, LOGITS)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Linear(3 * 8 * 8, width)
        self.logits = nn.Linear(width, LOGITS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        small = nn.functional.adaptive_avg_pool2d(images.float() / 255 - 0.5, 8).flatten(1)
        features = self.features(8 * small).relu()
        return features, self.logits(features)


def make(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write both splits: images cut from one array of random bytes, each at another place."""
    count = int(options.gigabytes * 1e9) // int(np.prod(SHAPE))
    random = np.random.default_rng(0).integers(0, 256, GREYS, np.uint8)
    size = int(np.prod(SHAPE))

    def images(of: int, seed: int) -> Iterator[np.ndarray]:
        for start in np.random.default_rng(seed).integers(0, GREYS - size, of).tolist():
            yield random[start : start + size].reshape(SHAPE)

    for name, of, seed in (("train", count, 1), ("test", HELD_OUT, 2)):
        labels = np.arange(of) % LOGITS
        classes = [str(label) for label in range(LOGITS)]
        dataset.write(folder / f"{name}.safetensors", images(of, seed), labels, classes, SHAPE, {"name": "benchmark"})
    return {"images": count + HELD_OUT}


def train(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Train for some steps and measure the share of a step that is spent on input; then only read."""
    where = _prepare(options)
    params = _settings(options.batch, options.steps)
    settings, diffusion = params.train, params.diffusion
    data = dataset.read(folder / "train.safetensors")
    torch.manual_seed(0)
    network = modelfile.Description(diffusion, params.network, SHAPE, data.classes).build()
    network.to(where).to(memory_format=devices.memory_format(where, settings.precision))
    batches = Batches(data, settings, diffusion.value_range, where)
    waited, usual = [0.0], batches.get

    def get(*arguments: Any) -> Any:
        begin = time.perf_counter()
        batch = usual(*arguments)
        waited[-1] += time.perf_counter() - begin
        return batch

    batches.get = get  # type: ignore[method-assign]
    learner = loop.Learner.start(network, settings)
    denoiser = Denoiser(network, process.from_settings(diffusion, where), diffusion)
    taken, begin = [], time.perf_counter()
    for record in loop.train(learner, denoiser, batches, settings):
        record.loss.item()  # wait for the device
        taken.append(time.perf_counter() - begin)
        waited.append(0.0)
        begin = time.perf_counter()
    steady, waits = taken[2:], waited[2:-1]  # the first steps allocate memory
    seconds = sum(steady) / len(steady)
    return {
        "images": options.batch * len(taken),
        "images_per_second": options.batch / seconds,
        "step_ms": 1000 * seconds,
        "waiting_share": sum(waits) / sum(steady),
    }


def read(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Read shuffled batches of 128 images without training."""
    where = _prepare(options)
    data = dataset.read(folder / "train.safetensors")
    steps = min(READ, len(data.images)) // 128
    params = _settings(128, steps)
    batches = Batches(data, params.train, params.diffusion.value_range, where)
    generator = rng.torch_generator(where, 0, "unused")
    begin = time.perf_counter()
    for step in range(1, steps + 1):
        batches.get(step, 0, generator)
    return {"images": 128 * steps, "images_per_second": 128 * steps / (time.perf_counter() - begin)}


def reference(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Write the features of both splits, as stage reference does."""
    where = _prepare(options)
    splits = {name: dataset.read(folder / f"{name}.safetensors") for name in ("train", "test")}
    extract = _extractor(options, where)
    begin = time.perf_counter()
    found = []
    for name, split in splits.items():
        rows = Rows.create(folder / name, len(split.images))
        for batch in extract.batches(split.images, Group(where)):
            rows.append(vars(batch))
        found.append(Features(**rows.tensors()))
    digests = (split.digest for split in splits.values())
    feature_files.write(folder / "reference.safetensors", Reference(*found, "classifier", "", *digests, {}))
    images = sum(len(split.images) for split in splits.values())
    size = (folder / "reference.safetensors").stat().st_size
    return {
        "images": images,
        "images_per_second": images / (time.perf_counter() - begin),
        "file_gigabytes": size / 1e9,
    }


def metrics(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Compare the features of samples with those of the real images, as stage evaluate does."""
    where = _prepare(options)
    samples = dataset.read(folder / "test.safetensors").images
    real = feature_files.read(folder / "reference.safetensors")
    begin = time.perf_counter()
    fidelity.measure(_extractor(options, where)(samples, where), real.train, real.test, 0)
    return {"images": len(real.train), "images_per_second": len(real.train) / (time.perf_counter() - begin)}


def neighbours(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Search the training images nearest to samples and to test images, as stage evaluate does."""
    where = _prepare(options)
    real, test = (dataset.read(folder / f"{name}.safetensors").images for name in ("train", "test"))
    begin = time.perf_counter()
    found = judge.look_for_copies(test, real, test, 8, folder / "neighbours.png", where)
    result = {"images": len(real), "images_per_second": len(real) / (time.perf_counter() - begin)}
    return result | {"median_distance": found["median"]}


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "make": make,
    "train": train,
    "read": read,
    "reference": reference,
    "metrics": metrics,
    "neighbours": neighbours,
}


def _prepare(options: argparse.Namespace) -> torch.device:
    changes = {"device": options.device, "threads": options.threads, "deterministic": False}
    return devices.prepare(Runtime.model_construct(**changes))


def _extractor(options: argparse.Namespace, device: torch.device) -> Extractor:
    network = RandomFeatures(options.features).to(device).eval()
    return Extractor("classifier", network, network, "", None)


def _settings(batch: int, steps: int) -> Params:
    """A small U-Net for images of 64x64, otherwise the default recipe."""
    changes = {
        "data.image_size": SHAPE[-1],
        "data.channels": SHAPE[0],
        "network.multipliers": [1, 2, 2],
        "network.attention": [SHAPE[-1] // 4],
        "train.batch_size": batch,
        "train.steps": steps,
        "train.horizontal_flip": True,
        "train.precision": "bf16",
    }
    return recipes.settings("default", changes)


def _peak() -> float:
    """The largest resident memory of this process so far, in GB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e9


def _drop_from_cache(folder: Path) -> None:
    """Make the system read the files from the disk, as it must if they are larger than memory."""
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _run_part(name: str, argv: list[str], folder: Path) -> dict[str, Any]:
    _drop_from_cache(folder)
    command = [sys.executable, "-m", "benchmarks.data", *argv, "--only", name]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def _line(name: str, found: dict[str, Any]) -> str:
    waiting = f"{100 * found['waiting_share']:.2f} %" if "waiting_share" in found else ""
    rate = (
        f"{found['images_per_second']:,.0f}"
        if found["images_per_second"] >= 100
        else f"{found['images_per_second']:.1f}"
    )
    return f"| {name:<10} | {found['images']:>9,} | {found['peak_gb']:>12.2f} | {rate:>8} | {waiting:>7} |"


def run(argv: list[str]) -> None:
    """Run the parts that the arguments choose, each in its own process, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=12.0, help="size of the images (default 12)")
    parser.add_argument("--folder", type=Path, required=True, help="for the files; they are removed at the end")
    parser.add_argument("--keep", action="store_true", help="keep the files, and use those that are there")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--features", type=int, default=2048, help="features of an image (default 2048, as Inception)")
    parser.add_argument("--steps", type=int, default=40, help="training steps (default 40)")
    parser.add_argument("--batch", type=int, default=16, help="images of a training step (default 16)")
    parser.add_argument("--device", default="auto", help="auto (CUDA or the CPU), cpu, cuda or cuda:N (default auto)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results and the machine to FILE")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)  # in the process of one part
    options = parser.parse_args(argv)
    if options.only:
        begin = time.perf_counter()
        found = PARTS[options.only](options.folder, options)
        elapsed = time.perf_counter() - begin
        rate = {"images_per_second": found["images"] / elapsed}
        print(json.dumps(rate | found | {"seconds": elapsed, "peak_gb": _peak()}), flush=True)
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    results = {}
    print("| part       |    images | peak RSS, GB | images/s | waiting |\n|---|---:|---:|---:|---:|", flush=True)
    try:
        for name in options.parts:
            if name == "make" and options.keep and (options.folder / "train.safetensors").exists():
                continue
            results[name] = _run_part(name, argv, options.folder)
            print(_line(name, results[name]), flush=True)
    finally:
        if not options.keep:
            for name in ("train.safetensors", "test.safetensors", "reference.safetensors", "neighbours.png"):
                (options.folder / name).unlink(missing_ok=True)
    if options.json:
        machine = {"cores": os.cpu_count(), "threads": options.threads, "torch": torch.__version__}
        machine |= {"system": platform.platform(), "device": str(devices.resolve(options.device))}
        content = {"benchmark": "data", "gigabytes": options.gigabytes, "machine": machine, "results": results}
        files.write_text(options.json, json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    run(sys.argv[1:])
