"""The five lines that end a run: its numbers beside those of real images, and where to look next."""

from collections.abc import Mapping
from typing import Any

from ddpm.params import Params, sampling_conflicts
from lab.pages.contents import number

_MOST = 4  # numbers in the line
_NUMBERS = {  # names of metrics and of their values for real images, the most important first
    "fid": ("FID", "floor", "fid_floor"),
    "is": ("Inception Score", "real images", "is_real"),
    "precision": ("precision", "", ""),
    "recall": ("recall", "", ""),
    "class_distance": ("class distance", "", ""),
    "kid": ("KID", "", ""),
}
EXTRACTORS = {"classifier": "a classifier trained on these images", "inception": "InceptionV3"}


def text(
    metrics: Mapping[str, Any], protocol: Mapping[str, Any], name: str, report: str, tracked: str, after: str
) -> str:
    """The lines; a value that was not measured is left out.

    `report` is the path of the page, `tracked` says where MLflow shows the run, `after` is the next command to try.
    """
    extractor = str(protocol.get("extractor", ""))
    by = f", measured with {EXTRACTORS.get(extractor, extractor)}" if extractor else ""
    samples = f": {protocol['samples']} samples{by}" if "samples" in protocol else ""
    useless = "useless, " if metrics.get(extractor, {}).get("useless") else ""
    warned = f" ({useless}see the warnings in the report)" if protocol.get("warnings") else ""
    rows = {
        "metrics": (", ".join(_beside(*row) for row in numbers(metrics.get(extractor, {}))) or "none") + warned,
        "report": report,
        "MLflow": tracked,
        "next": after,
    }
    return "\n".join([f"{name}{samples}", *(f"  {title:<9}{value}" for title, value in rows.items())])


def numbers(measured: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """The first metrics that are measured: title, value, and the named value for real images, empty without one."""
    found = []
    for key, (title, other, other_key) in _NUMBERS.items():
        if key in measured:
            real = f"{other} {number(measured[other_key])}" if other_key in measured else ""
            found.append((title, number(measured[key]), real))
    return found[:_MOST]


def _beside(title: str, value: str, real: str) -> str:
    return f"{title} {value}" + (f" ({real})" if real else "")


def quick_experiment(params: Params) -> str | None:
    """A command for an experiment that does not train: half as many sampling steps. None if that is not allowed."""
    half = params.sample.steps // 2
    changed = params.sample.model_copy(update={"steps": half})
    if half == 0 or any(sampling_conflicts(changed, params.diffusion, params.network)):
        return None
    return f"dvc exp run -S sample.steps={half}"
