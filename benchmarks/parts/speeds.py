"""The parts `peak`, `training-speed` and `sampling-speed` of the paper's CIFAR-10 network."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks import limit, ours, recipes, timing
from benchmarks.parts import part as parts
from benchmarks.parts.part import Part
from ddpm import device as devices
from ddpm.params import Params

_ROUNDS = 5
_SECONDS = {
    "eager": 20.0,
    "compiled": 150.0,
    "graphs": 150.0,
    "runtime.compile": 200.0,
}  # of a row, mostly for compiling
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

# Mode, batch, precision and whether only deterministic kernels are used; the most telling first.
Row = tuple[str, int, str, bool]
TRAINING: list[Row] = [
    ("eager", 128, "bf16", False),
    ("compiled", 128, "bf16", False),
    ("graphs", 128, "bf16", False),
    ("runtime.compile", 128, "bf16", False),
    ("eager", 128, "bf16", True),
    ("eager", 256, "bf16", False),
    ("eager", 512, "bf16", False),
    ("compiled", 512, "bf16", False),
    ("graphs", 512, "bf16", False),
    ("eager", 128, "fp32", False),
    ("compiled", 256, "bf16", False),
]
SAMPLING: list[Row] = [
    ("eager", 128, "bf16", False),
    ("compiled", 128, "bf16", False),
    ("graphs", 128, "bf16", False),
    ("eager", 512, "bf16", False),
    ("runtime.compile", 512, "bf16", False),
    ("compiled", 512, "bf16", False),
    ("graphs", 512, "bf16", False),
    ("eager", 2048, "bf16", False),
    ("eager", 128, "fp32", False),
]
_TINY: list[Row] = [("eager", 2, "bf16", False), ("eager", 4, "fp32", True)]


def peak(part: Part) -> None:
    """Measure the most operations per second of large products."""
    for name, dtype in _DTYPES.items():
        if name not in part.rows:
            runtime = part.params({"runtime.deterministic": False, "runtime.device": str(part.device)}).runtime
            devices.prepare(runtime)
            repeats = {"rounds": 1, "calls": 1} if part.miniature else {}
            part.add(name, {"tflops": float(f"{limit.peak(part.device, dtype, **repeats) / 1e12:.4g}")})


def training(part: Part) -> None:
    """Measure images/s of the real training step."""
    _measure(part, _TINY if part.miniature else TRAINING, calls=20, evaluations=None)


def sampling(part: Part) -> None:
    """Measure network evaluations/s of the real sampling loop."""
    _measure(part, _TINY if part.miniature else SAMPLING, calls=2, evaluations=2 if part.miniature else 20)


def _measure(part: Part, rows: list[Row], calls: int, evaluations: int | None) -> None:
    for row in rows:
        mode, batch, precision, deterministic = row
        name = f"{mode}, batch {batch}, {precision}" + (", deterministic" if deterministic else "")
        if name in part.rows:
            continue
        part.start(name, _SECONDS[mode])
        changes = {"train.batch_size": batch, "train.precision": precision, "runtime.deterministic": deterministic}
        params = part.params({**changes, "runtime.device": str(part.device)})
        devices.prepare(params.runtime)
        try:
            part.add(name, _row(part, params, mode, 1 if part.miniature else calls, evaluations))
        except Exception as error:  # a mode that fails must not hide the others
            part.add(name, {"failed": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:300]}"})
        _forget(part.device)


def _row(part: Part, params: Params, mode: str, calls: int, evaluations: int | None) -> dict[str, Any]:
    """Measure one row: the first call, which compiles, apart from the others."""
    batch, precision = params.train.batch_size, params.train.precision
    amount = batch * (evaluations or 1)
    if evaluations is None:
        call = ours.training(params, part.device, mode)
    else:
        call = ours.sampling(params, part.device, batch, evaluations, precision, mode)
    first = timing.duration(call, part.device, 1)
    timing.duration(call, part.device, 3)  # a CUDA graph is recorded in the second call
    speed = timing.Spread.of([amount / seconds for seconds in _rounds(part, call, calls)])
    what = "images_per_second" if evaluations is None else "evaluations_per_second"
    described = recipes.description(params)
    products = limit.products(recipes.network(described), described.image_shape, batch)
    per_image = limit.flops(products, train=evaluations is None) / batch
    found = {what: speed.median, "least": speed.least, "most": speed.most, "milliseconds": 1e3 * batch / speed.median}
    found |= {"first_call_seconds": first, "gflop_per_image": per_image / 1e9}
    peaks = parts.read(part.folder, "peak")
    if peaks is not None:
        found["share_of_bf16_peak"] = speed.median * per_image / 1e12 / peaks["rows"]["bf16"]["tflops"]
    if part.device.type == "cuda":
        found["peak_memory_gb"] = torch.cuda.max_memory_allocated(part.device) / 1e9
    return {key: float(f"{value:.4g}") for key, value in found.items()}


def _rounds(part: Part, call: Callable[[], object], calls: int) -> Iterator[float]:
    return (timing.duration(call, part.device, calls) for _ in range(2 if part.miniature else _ROUNDS))


def _forget(device: torch.device) -> None:
    """Free compiled code and memory, so that a row does not depend on the rows before it."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def fastest_mode(folder: Path, batch: int) -> str:
    """The mode that trained fastest at a batch size, or eager if the part `training-speed` has no rows."""
    found = parts.read(folder, "training-speed")
    rows = found["rows"] if found else {}
    speeds = {mode: rows.get(f"{mode}, batch {batch}, bf16", {}).get("images_per_second", 0.0) for mode in ours.MODES}
    return max(speeds, key=lambda mode: speeds[mode])
