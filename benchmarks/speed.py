"""The tables of `train` and `sample`: cases beside diffusers as it ships, and beside the limit."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks import limit, recipes, results, timing
from benchmarks.limit import Product
from benchmarks.recipes import Size
from ddpm.params import Params

BASE = "diffusers, as it ships (fp32)"
_LIMIT = "convolutions and matrix products alone"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}

Case = tuple[str, Callable[[], Callable[[], object]]]  # its name, and a function that makes it


Cases = Callable[[Params, Size, torch.device, bool], list[Case]]  # also with those of runtime.compile, or without


def command(
    argv: Sequence[str] | None, description: str | None, title: str, cases: Cases, evaluations: int | None
) -> None:
    """Measure the networks one after the other: the command line of `train` and `sample`.

    A call of a case evaluates the network so often for each image; None for a training step.
    """
    options = _parser(description).parse_args(argv)
    rows, shown = {}, []
    for name in options.network:
        size = recipes.SIZES[name]
        device = results.prepare(recipes.settings(size.recipe, {}).runtime, options.device, options.threads)
        params = parameters_of(size, device, options.batch)
        made = cases(params, size, device, options.compiled)
        calls = max(calls_of(name, device, options.calls) // (evaluations or 1), 1)
        rows[name] = measure(made, params, device, options.rounds, calls, evaluations)
        shown.append(f"{name}, batch {params.train.batch_size}\n\n{printed(rows[name])}")
    results.finish(title, rows, "\n\n".join(shown), device, options.json)


def _parser(description: str | None) -> argparse.ArgumentParser:
    made = results.parser(description, rounds=5)
    sizes = list(recipes.SIZES)
    made.add_argument("--network", choices=sizes, nargs="+", default=sizes, help="networks to measure (default all)")
    made.add_argument("--batch", type=int, help="images (default: digits 64; cifar10 16 on a CPU, 128 on a GPU)")
    made.add_argument("--calls", type=int, help="calls per round (default: digits 30, cifar10 2; on a GPU 30)")
    made.add_argument("--compiled", action="store_true", help="also measure runtime.compile, which takes minutes")
    return made


def calls_of(network: str, device: torch.device, asked: int | None) -> int:
    """The calls of each case in a round."""
    return asked or (2 if network == "cifar10" and device.type == "cpu" else 30)


def parameters_of(recipe: Size, device: torch.device, batch: int | None) -> Params:
    """The recipe's settings with the batch of the measurement."""
    chosen = recipes.settings(recipe.recipe, {})
    train = chosen.train.model_copy(update={"batch_size": batch or recipe.batch(device)})
    return chosen.model_copy(update={"train": train})


def measure(
    cases: Sequence[Case],
    params: Params,
    device: torch.device,
    rounds: int,
    calls: int,
    evaluations: int | None,
) -> dict[str, Any]:
    """Measure the cases and the limit; `evaluations` of the network per call, or None for a training step.

    On a CPU the limit is the products alone, in the fastest precision and memory format. On a GPU it is the peak of a
    large product in bf16.
    """
    train = evaluations is None
    amount = params.train.batch_size * (evaluations or 1)
    described = recipes.description(params)
    found = limit.products(recipes.network(described), described.image_shape, params.train.batch_size)
    made = {}
    for name, make in cases:
        results.say(f"preparing {name}")
        made[name] = make()
    limits = _limits(found, device, train, evaluations or 1) if device.type == "cpu" else {}
    durations = timing.interleaved(made | limits, device, rounds, calls, results.say)
    rows: dict[str, Any] = {}
    for name in made:
        rows[name] = {
            "images_per_second": results.plain(durations.speed(name, amount)),
            **({"times_diffusers": results.plain(durations.ratio(name, BASE))} if BASE in made else {}),
        }
    for precision in _DTYPES if limits else ():
        best = durations.fastest([name for name in limits if name.startswith(precision)])
        rows[f"{_LIMIT}, {best}"] = {"images_per_second": results.plain(durations.speed(best, amount))}
    for name in made if limits else ():
        rows[name]["of_limit"] = results.plain(durations.ratio(name, durations.fastest(list(limits))))
    summary: dict[str, Any] = {"gflops_per_image": round(limit.flops(found, train) / params.train.batch_size / 1e9, 4)}
    if device.type == "cuda":
        summary["peak_bf16_tflops"] = round(limit.peak(device, torch.bfloat16) / 1e12, 1)
        for name in made:
            if "denoising" not in name:  # which is another network
                speed = rows[name]["images_per_second"]["median"]
                rows[name]["of_peak"] = share_of_peak(speed, summary)
    return {**summary, "batch": params.train.batch_size, "rows": rows}


def share_of_peak(images_per_second: float, summary: Mapping[str, Any]) -> float:
    """The share of the measured peak in bf16 that the products of a network take."""
    return float(f"{images_per_second * summary['gflops_per_image'] / 1e3 / summary['peak_bf16_tflops']:.3g}")


def _limits(found: list[Product], device: torch.device, train: bool, times: int) -> dict[str, Callable[[], object]]:
    def repeated(once: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                once()

        return run

    return {
        f"{precision} {layout}": repeated(limit.alone(found, device, dtype, memory_format, train))
        for precision, dtype in _DTYPES.items()
        for layout, memory_format in _LAYOUTS.items()
    }


def printed(measured: Mapping[str, Any]) -> str:
    """The table of a result of `measure`."""
    rows = measured["rows"]
    share = "of_peak" if "peak_bf16_tflops" in measured else "of_limit"
    heads = {"of_peak": "of the bf16 peak", "of_limit": "of the limit"}
    lines = []
    for name, row in rows.items():
        speed = row["images_per_second"]
        span = f"{results.number(speed['least'])} to {results.number(speed['most'])}"
        cells = [name, results.number(speed["median"]), span]
        ratio, part = row.get("times_diffusers"), row.get(share)
        cells.append(f"{ratio['median']:.2f}" if ratio else "")
        median = part["median"] if isinstance(part, dict) else part
        cells.append("" if median is None else f"{median:.2f}")
        lines.append(cells)
    shown = results.table(["", "images/s", "range", "times diffusers as it ships", heads[share]], lines)
    peak = measured.get("peak_bf16_tflops")
    below = f"\n\n{measured['gflops_per_image']:.3g} GFLOP per image"
    return shown + below + (f"; measured peak of bf16 products: {peak:,.0f} TFLOP/s" if peak else "")
