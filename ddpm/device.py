"""Where the work runs, and how: device, threads, precision, compilation."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ddpm import mapped
from ddpm.errors import UsageError
from ddpm.params import Runtime

Precision = Literal["fp32", "bf16"]

_WITHOUT_FLOAT64 = ("mps",)
# Parameters times forward passes of one image, from which compiling pays on CUDA. Compiling takes about a minute and
# is assumed to save a quarter of the time, so it pays for jobs of four minutes. A GPU of 2e14 operations a second
# evaluates 35.7 million parameters on 32x32 images, 12e9 operations, about 17,000 times a second: in four minutes
# 1.4e14 parameters times passes.
_COMPILED_WORK = 1.4e14
_SHARE = 0.5  # share of free memory for data; the network, its gradients and activations need the rest


def prepare(runtime: Runtime, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """Set up torch for the section `runtime` and return the device. Raises `UsageError` as `resolve` does."""
    torch.set_num_threads(runtime.threads)
    if runtime.deterministic:
        # cuBLAS reads this when its first handle is made, and is not deterministic without it.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(runtime.deterministic)
    where = resolve(runtime.device, local_rank, local_size)
    if where.type == "cuda" and where != torch.device("cuda"):
        torch.cuda.set_device(where)
    # TF32 is fp32 with 10 bits of fraction. cuDNN's benchmark chooses kernels by their speed, so it may choose others
    # in another run.
    fast = where.type == "cuda" and not runtime.deterministic
    torch.set_float32_matmul_precision("high" if fast else "highest")
    torch.backends.cudnn.allow_tf32 = fast
    torch.backends.cudnn.benchmark = fast
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
    if not re.fullmatch(r"cpu|cuda(:\d{1,2})?|mps", name):  # torch fails for indices above 127
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
    """The memory format of the weights under which a network is fastest; images take the format of the weights.

    It is channels last, except for bf16 on a CPU, where channels last took 1.36 times as long to train at 28x28 and 32
    channels (`python -m benchmarks.memory_format`) and 1.23 times as long to sample at 8x8, and for MPS, where it was
    not tried.
    """
    contiguous = device.type == "mps" or (device.type == "cpu" and precision == "bf16")
    return torch.contiguous_format if contiguous else torch.channels_last


def hold(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Move data to the device if it fits there; otherwise leave it memory-mapped on the host."""
    if device.type != "cuda" or tensor.nbytes >= _SHARE * torch.cuda.mem_get_info(device)[0]:
        return tensor
    held = torch.empty_like(tensor, device=device)
    mapped.copy(tensor, held)
    return held


@dataclass(frozen=True)
class Compilation:
    """Whether a network is compiled, and the reason, in words that follow the name of a stage."""

    chosen: bool
    reason: str


def compilation(setting: bool | Literal["auto"], device: torch.device, parameters: int, passes: int) -> Compilation:
    """Decide about `runtime.compile` for a network that makes `passes` forward passes of one image.

    The forward and backward pass of training count as three. auto compiles where that is faster in total: on CUDA, from
    a product of parameters and passes on. Raises `UsageError` for true without a C++ compiler.
    """
    if not setting:
        return Compilation(False, "does not compile the network")
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    missing = shutil.which(compiler) is None
    if setting == "auto":
        work = parameters * passes
        if device.type != "cuda":
            return Compilation(False, "does not compile the network (auto): that pays only on CUDA")
        if work < _COMPILED_WORK:
            size = f"{work:.1e} parameters times images is less than {_COMPILED_WORK:.1e}"
            return Compilation(False, f"does not compile the network (auto): {size}")
        if missing:
            return Compilation(False, f"does not compile the network (auto): there is no C++ compiler {compiler!r}")
    elif missing:
        raise UsageError(
            f"runtime.compile = true: there is no C++ compiler {compiler!r}; install it, or name another in the "
            "environment variable CXX, or set runtime.compile: false"
        )
    return Compilation(True, "compiles the network, which takes about a minute")


def compiled_for_training(
    network: nn.Module, device: torch.device, deterministic: bool, accumulate: int
) -> Callable[..., Any]:
    """The network compiled for forward and backward passes on batches of one size, when it is first called.

    CUDA graphs are used only for `accumulate` = 1: a replay overwrites the gradients of the micro-batch before
    (github.com/pytorch/pytorch/issues/169545).
    """
    return torch.compile(network, dynamic=False, options=_options(device, deterministic, graphs=accumulate == 1))


def compiled_for_inference(
    network: nn.Module, device: torch.device, deterministic: bool, batch_size: int
) -> Callable[..., Any]:
    """The network compiled for batches of `batch_size` images (N, C, H, W), when it is first called without gradients.

    It runs other batches, such as the last one, uncompiled, because each size would be compiled separately. Its weights
    must not change afterwards.
    """
    options = _options(device, deterministic, graphs=True) | {"freezing": device.type == "cpu"}
    fast = torch.compile(network, dynamic=False, options=options)

    def forward(x: Tensor, *rest: Any, **named: Any) -> Any:
        if len(x) != batch_size:
            return network(x, *rest, **named)
        # Strides of images with one channel are ambiguous, and others would be compiled separately.
        x = x.clone(memory_format=torch.contiguous_format)
        if device.type != "cuda":
            return fast(x, *rest, **named)
        torch.compiler.cudagraph_mark_step_begin()
        output = fast(x, *rest, **named)  # in memory that the next call overwrites
        return output.clone() if isinstance(output, Tensor) else tuple(part.clone() for part in output)

    return forward


def _options(device: torch.device, deterministic: bool, graphs: bool) -> dict[str, Any]:
    """Options of inductor: those of the mode max-autotune, or those whose choice of kernels needs no measurement."""
    if device.type != "cuda":
        return {}
    if deterministic:
        return {"deterministic": True, "triton.cudagraphs": graphs}
    return {"max_autotune": True, "coordinate_descent_tuning": True, "triton.cudagraphs": graphs}
