"""The machine that a measurement was made on."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def describe(device: torch.device) -> dict[str, Any]:
    """Processor, cores, threads, memory in GB, versions and, for CUDA, the name and number of GPUs."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "gpus": torch.cuda.device_count() if device.type == "cuda" else 0,
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def line(machine: dict[str, Any]) -> str:
    """One line that says which machine it is."""
    where = machine["gpu"] or machine["processor"]
    return f"{where}, {machine['cores']} cores, {machine['threads']} threads, torch {machine['torch']}"


def processor() -> str:
    """The model of the processor, where Linux has it in a file; elsewhere the architecture."""
    with suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or platform.machine()
