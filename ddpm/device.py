"""Where the work runs: device, threads, precision."""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from ddpm import files
from ddpm.errors import UsageError
from ddpm.params import Runtime

Precision = Literal["fp32", "bf16"]

_WITHOUT_FLOAT64 = ("mps",)
_SHARE = 0.5  # share of free memory for data; the network, its gradients and activations need the rest


def prepare(runtime: Runtime, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """Set up torch for the section `runtime` and return the device. Raises `UsageError` as `resolve` does."""
    torch.set_num_threads(runtime.threads)
    if runtime.deterministic:
        # cuBLAS reads this when its first handle is made, and is not deterministic without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(runtime.deterministic)
    torch.backends.cudnn.allow_tf32 = False  # keep fp32 exact; train.precision bf16 is the fast choice
    torch.backends.cudnn.benchmark = not runtime.deterministic
    where = resolve(runtime.device, local_rank, local_size)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    return where


def resolve(name: str, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """The device called `name`, for one of `local_size` processes on this machine.

    auto is CUDA if available, else the CPU; it does not choose MPS (the GPU of a Mac), because no result was measured
    there. Of several processes, each has the CUDA device of its rank, or all have the CPU. Raises `UsageError` for a
    missing device, or if processes would share a GPU.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if available else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?|mps", name):
        raise UsageError(f"device {name!r}: must be auto, cpu, cuda, cuda:N or mps")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device 'mps': this machine has no MPS; use cpu or auto")
    device = torch.device(name)
    if device.type != "cpu" and local_size > 1:
        if ":" in name or device.type == "mps":
            raise UsageError(f"device {name!r}: {local_size} processes on this machine would share it; use auto or cpu")
        if local_size > available:
            raise UsageError(
                f"device {name!r}: there are {local_size} processes on this machine and {available} CUDA devices; "
                f"start as many processes as devices, or use cpu"
            )
        device = torch.device("cuda", local_rank)
    if device.type == "cuda" and (device.index or 0) >= available:
        raise UsageError(f"device {name!r}: this machine has {available} CUDA devices; use cpu or auto")
    return device


def for_float64(device: torch.device | str) -> torch.device:
    """The device for float64 tensors that belong to tensors on `device`: the CPU for MPS, which has no float64."""
    device = torch.device(device)
    return torch.device("cpu") if device.type in _WITHOUT_FLOAT64 else device


def dtype(precision: Precision) -> torch.dtype:
    """The dtype of weights in a precision of the section `sample`."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which the network runs: bf16 for operations that are safe in it; weights stay fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def memory_format(device: torch.device, precision: str) -> torch.memory_format:
    """The memory format of the weights under which training is fastest; images take the format of the weights.

    It is channels last, except for bf16 on a CPU, where channels last took 1.36 times as long at 28x28 and 32 channels
    (`python -m benchmarks.memory_format`), and for MPS, where it was not tried.
    """
    contiguous = device.type == "mps" or (device.type == "cpu" and precision == "bf16")
    return torch.contiguous_format if contiguous else torch.channels_last


def hold(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move data to the device if it fits there; otherwise leave it memory-mapped on the host."""
    if device.type != "cuda" or tensor.nbytes >= _SHARE * torch.cuda.mem_get_info(device)[0]:
        return tensor
    held = torch.empty_like(tensor, device=device)
    files.copy(tensor, held)
    return held
