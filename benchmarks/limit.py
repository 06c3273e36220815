"""The limits of speed: the convolutions and matrix products of a network alone, and the peak of large products."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from benchmarks import timing

_PEAK_SIZES = {"cuda": (4096, 8192, 16384), "cpu": (512, 1024)}


@dataclass(frozen=True)
class Product:
    """A convolution or a product of matrices in one evaluation of a network."""

    kind: str  # conv | linear | attention
    x: tuple[int, ...]
    weight: tuple[int, ...]  # of attention: the shape of the values
    stride: int = 1
    padding: int = 0

    @property
    def flops(self) -> int:
        """Operations of the forward pass, two for each multiplication with its addition."""
        if self.kind == "conv":
            outputs, inputs, height, width = self.weight
            size = [(side + 2 * self.padding - kernel) // self.stride + 1 for side, kernel in self._sides()]
            return 2 * self.x[0] * outputs * size[0] * size[1] * inputs * height * width
        if self.kind == "linear":
            return 2 * math.prod(self.x[:-1]) * self.weight[0] * self.weight[1]
        images, heads, positions, channels = self.x
        return 4 * images * heads * positions * positions * channels  # the weights, and their sums of values

    def _sides(self) -> Iterator[tuple[int, int]]:
        return zip(self.x[2:], self.weight[2:], strict=True)


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Product] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.conv2d:
            x, weight, _, stride, padding, *_ = args
            self.found.append(Product("conv", tuple(x.shape), tuple(weight.shape), stride[0], padding[0]))
        elif func is torch.nn.functional.linear:
            self.found.append(Product("linear", tuple(args[0].shape), tuple(args[1].shape)))
        elif func is torch.nn.functional.scaled_dot_product_attention:
            self.found.append(Product("attention", tuple(args[0].shape), tuple(args[2].shape)))
        return func(*args, **kwargs)


@torch.no_grad()
def products(network: nn.Module, image_shape: tuple[int, int, int], batch: int) -> list[Product]:
    """The products of one evaluation of a network on the CPU, in their order."""
    with _Recorder() as recorder:
        network(torch.zeros(1, *image_shape), torch.zeros(1, dtype=torch.int64))
    return [Product(p.kind, (batch, *p.x[1:]), p.weight, p.stride, p.padding) for p in recorder.found]


def flops(of: list[Product], train: bool) -> int:
    """Operations of one evaluation and, with `train`, of its backward pass.

    The backward pass has one product for the gradient of the input and one for that of the weights. The inputs of the
    network have no gradients.
    """
    forward = sum(product.flops for product in of)
    return 3 * forward - sum(product.flops for product in _at_inputs(of)) if train else forward


def _at_inputs(of: list[Product]) -> list[Product]:
    """The products that take the inputs of the network: the first convolution, and the first layer of the time."""
    return [next(product for product in of if product.kind == kind) for kind in ("conv", "linear")]


def alone(
    of: list[Product], device: torch.device, dtype: torch.dtype, layout: torch.memory_format, train: bool
) -> Callable[[], None]:
    """A function that computes only the products, on random numbers, and with `train` those of the backward pass."""
    calls = []
    for product, times in Counter(of).items():  # equal products share their numbers, for the sake of memory
        call = _call(product, device, dtype, layout, train, first=product in _at_inputs(of))
        calls += [call] * times

    def run() -> None:
        with torch.set_grad_enabled(train):
            for call in calls:
                call()

    return run


def _call(
    product: Product, device: torch.device, dtype: torch.dtype, layout: torch.memory_format, train: bool, first: bool
) -> Callable[[], object]:
    def random(shape: tuple[int, ...], scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape)).to(device, dtype)

    forward: Callable[..., Tensor]
    if product.kind == "attention":
        inputs = [random(product.x).flatten(0, 1) for _ in range(3)]
        forward = _attention
    elif product.kind == "linear":
        inputs = [random(product.x), random(product.weight, 0.02)]
        forward = torch.nn.functional.linear
    else:
        inputs = [random(shape).contiguous(memory_format=layout) for shape in (product.x, product.weight)]
        forward = partial(torch.conv2d, stride=product.stride, padding=product.padding)
    if not train:
        return partial(forward, *inputs)
    wanted = inputs[1:] if first else inputs
    for tensor in wanted:
        tensor.requires_grad_()
    gradient = torch.randn_like(forward(*inputs))
    return lambda: torch.autograd.grad(forward(*inputs), wanted, gradient)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The two products of attention without the softmax between them."""
    return torch.bmm(torch.bmm(query, key.transpose(1, 2)), value)


def peak(device: torch.device, dtype: torch.dtype, rounds: int = 5, calls: int = 20) -> float:
    """The most operations per second of a product of two large square matrices, over several sizes."""
    found = []
    for size in _PEAK_SIZES[device.type]:
        first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty(size, size, device=device, dtype=dtype)
        times = max(calls * _PEAK_SIZES[device.type][0] ** 3 // size**3, 2)
        seconds = [timing.duration(partial(torch.mm, first, second, out=out), device, times) for _ in range(rounds + 1)]
        found.append(2 * size**3 / min(seconds[1:]))
    return max(found)
