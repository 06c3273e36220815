"""The part `processes`: a training step that several processes share, on the CPU and on as many GPUs as there are."""

import argparse
from typing import Any

import torch

from benchmarks import scale
from benchmarks.parts.part import Part
from ddpm.errors import UsageError

_SECONDS = 30.0
_MICROS = 4  # micro-batches, and the most processes


def run(part: Part) -> None:
    """Measure each number of processes and compare the bytes with those of one."""
    tiny = {"network": "digits", "batch": 8, "calls": 1} if part.miniature else {}
    on_cpu = {"network": "digits", "device": "cpu", "batch": 64, "calls": 10, "accumulate": _MICROS} | tiny
    _measure(part, "gloo", on_cpu, [1, 2] if part.miniature else [1, 2, 4])
    if part.device.type == "cuda":
        on_gpu = {"network": "cifar10", "device": "cuda", "batch": 128, "calls": 10, "accumulate": _MICROS}
        # NCCL refuses two processes on one GPU, and the row says so.
        _measure(part, "nccl", on_gpu, [n for n in (1, 2, 4) if n <= max(torch.cuda.device_count(), 2)])


def _measure(part: Part, backend: str, options: dict[str, Any], counts: list[int]) -> None:
    for count in counts:
        name = f"{backend}, {count} of {options['network']}"
        if name in part.rows:
            continue
        part.require(_SECONDS)
        try:
            found = scale.measure(argparse.Namespace(**options), count, threads=1)
        except UsageError as error:
            part.add(name, {"skipped": str(error)})
            continue
        one = part.rows.get(f"{backend}, 1 of {options['network']}", {}).get("digest", found["digest"][:16])
        row = {f"{case} ms": float(f"{1e3 * seconds:.4g}") for case, seconds in found["seconds"].items()}
        if count > 1:
            row["overhead of tree"] = float(f"{scale.overhead(found['seconds']):.3g}")
        part.add(name, {"digest": found["digest"][:16], "same_bytes": found["digest"][:16] == one, **row})
