"""Measure a training step of a small network in each memory format and precision.

The cases alternate within one run. Each ratio is the speed, as a multiple of that of contiguous fp32.
"""

from collections.abc import Callable, Sequence

import torch

from benchmarks import recipes, results, timing
from ddpm.device import autocast
from ddpm.network.modelfile import Description

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
_BASE = "fp32 contiguous"


def run(argv: Sequence[str] | None = None) -> None:
    """Alternate and print."""
    parser = results.parser(__doc__, rounds=7)
    parser.add_argument("--size", type=int, default=28, help="pixels of the grey images (default 28)")
    parser.add_argument("--channels", type=int, default=32, help="channels of the first of three levels (default 32)")
    parser.add_argument("--batch", type=int, default=64, help="images (default 64)")
    options = parser.parse_args(argv)
    changes = {
        "data.source": "mnist",
        "data.image_size": options.size,
        "network.channels": options.channels,
        "network.multipliers": [1, 2, 2],
        "network.attention": [options.size // 4],
        "train.batch_size": options.batch,
    }
    params = recipes.settings("default", changes)
    device = results.prepare(params.runtime, options.device, options.threads)
    described = recipes.description(params)
    cases = {
        f"{precision} {name}": stepping(described, options.batch, device, precision, memory_format)
        for precision in ("fp32", "bf16")
        for name, memory_format in FORMATS.items()
    }
    durations = timing.interleaved(cases, device, options.rounds, calls=2, progress=results.say)
    rows = {
        name: {
            "ms": results.plain(timing.Spread.of([1e3 * each for each in durations.seconds[name]])),
            "ratio": results.plain(durations.ratio(name, _BASE)),
        }
        for name in cases
    }
    lines = [[name, f"{row['ms']['median']:.1f}", f"{row['ratio']['median']:.2f}"] for name, row in rows.items()]
    printed = results.table(["", "ms per step", f"times {_BASE}"], lines)
    results.finish("memory formats", rows, printed, device, options.json)


def stepping(
    described: Description, batch: int, device: torch.device, precision: str, memory_format: torch.memory_format
) -> Callable[[], None]:
    """A function that takes an optimizer step on random images."""
    network = recipes.network(described).to(device).to(memory_format=memory_format)
    adam = torch.optim.Adam(network.parameters(), fused=True)
    x = torch.randn(batch, *described.image_shape, device=device).contiguous(memory_format=memory_format)
    index = torch.randint(0, 1000, (batch,), device=device)

    def step() -> None:
        with autocast(device, precision):
            out = network(x, index)
        (out.float() - x).square().mean().backward()
        adam.step()
        adam.zero_grad()

    return step


if __name__ == "__main__":
    run()
