"""Measure the time of a training step for each memory format and precision.

The cases alternate within one run. The output lists the median time per step and its ratio to contiguous fp32.

python -m benchmarks.memory_format --size 28 --channels 32
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from ddpm.device import autocast
from ddpm.network.unet import UNet
from ddpm.params import UNetNetwork

FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def network(channels: int, size: int) -> UNet:
    """A U-Net of three levels for grey images of the given size."""
    settings = UNetNetwork(
        kind="unet",
        channels=channels,
        multipliers=[1, 2, 2],
        blocks=1,
        attention=[size // 4],
        heads=1,
        groups=8,
        norm_eps=1e-6,
        dropout=0.0,
        time=True,
        downsample="asymmetric",
        conditional=False,
    )
    return UNet(settings, 1, size, outputs=1, classes=0)


def run(argv: Sequence[str] | None = None) -> None:
    """Alternate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    torch.set_num_threads(2)

    cases = {}
    for precision in ("fp32", "bf16"):
        for name, memory_format in FORMATS.items():
            net = network(arguments.channels, arguments.size).to(device).to(memory_format=memory_format)
            adam = torch.optim.Adam(net.parameters(), fused=True)
            x = torch.randn(arguments.batch, 1, arguments.size, arguments.size, device=device)
            cases[f"{precision} {name}"] = (net, adam, x.contiguous(memory_format=memory_format), precision)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    index = torch.randint(0, 1000, (arguments.batch,), device=device)
    for _ in range(arguments.rounds + 1):
        for name, (net, adam, x, precision) in cases.items():
            begin = time.perf_counter()
            for _ in range(2):
                with autocast(device, precision):
                    out = net(x, index)
                (out.float() - x).square().mean().backward()
                adam.step()
                adam.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append((time.perf_counter() - begin) / 2)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:<20} {median * 1000:7.1f} ms/step  ratio {median / medians['fp32 contiguous']:.2f}")


if __name__ == "__main__":
    run()
