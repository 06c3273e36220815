"""The schema of params.yaml: every key, its range and unit. ddpm/rules.py has the rules between keys.

The schema has no defaults: all values are in params.yaml or follow from them (ddpm/alternatives.py).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ddpm import alternatives, rules
from ddpm.errors import UsageError, no_such_key


class ParamsError(UsageError):
    """params.yaml is not usable; the message names every wrong key with its value and rule."""


@dataclass(frozen=True)
class Conflict:
    """A value that a rule or the other settings do not allow."""

    key: str  # dotted, as after -S
    value: object
    rule: str

    def __str__(self) -> str:
        value = "" if self.value is alternatives.MISSING else f" = {self.value!r}"
        return f"{self.key}{value}: {self.rule}"


class ConflictError(UsageError):
    """Settings that cannot be used together. Each interface formats `conflicts` with its names of options."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        super().__init__("\n  ".join(map(str, conflicts)))
        self.conflicts = conflicts


def _number(value: object) -> object:
    """Convert text such as `1e-05` to a float: YAML 1.1 requires `1.0e-05` and reads the short form as text."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+\.?\d*[eE][+-]?\d+", value) else value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Beta = Annotated[Number, Field(ge=1e-12, lt=1)]  # below 1e-12, 1 - beta loses its digits in float64
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1)]
Timesteps = Annotated[int, Field(ge=2, le=100_000)]


class Section(BaseModel):
    """A section of params.yaml: immutable, without conversions and without unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """The images, and how they become squares of one size."""

    source: Literal["digits", "shapes", "mnist", "fashion-mnist", "kmnist", "cifar10", "folder"]
    path: str | None
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    image_size: Annotated[int, Field(ge=2, le=4096)]
    channels: Literal[1, 3]
    fit: Literal["pad", "resize", "crop"]
    seed: Seed | None


class Gaussian(Section):
    """The forward process, Section 2 of the paper."""

    process: Literal["gaussian"]
    timesteps: Timesteps
    schedule: Literal["linear", "quad", "const", "warmup10", "warmup50", "jsd", "cosine", "sigmoid"]
    beta_start: Beta | None
    beta_end: Beta | None
    prediction: Literal["eps", "x_0", "v", "mu"]
    variance: Literal["fixed", "learned", "learned_range"]
    value_range: Annotated[list[Number], Field(min_length=2, max_length=2)]


class Interpolation(Section):
    """x_t = (1 - a) x_0 + a u with a = t / T and u uniform: the process of the Hugging Face course."""

    process: Literal["interpolation"]
    timesteps: Timesteps
    prediction: Literal["x_0"]
    variance: Literal["fixed"]
    value_range: Annotated[list[Number], Field(min_length=2, max_length=2)]


Diffusion = Annotated[Gaussian | Interpolation, Field(discriminator="process")]


class UNetNetwork(Section):
    """The U-Net, Appendix B of the paper."""

    kind: Literal["unet"]
    channels: Count
    multipliers: Annotated[list[Count], Field(min_length=1)]
    blocks: Count
    attention: list[Count]
    heads: Count
    groups: Count
    norm_eps: Annotated[Number, Field(gt=0)]
    dropout: Annotated[Number, Field(ge=0, lt=1)]
    time: bool
    downsample: Literal["asymmetric", "symmetric"]
    conditional: bool


class BasicNetwork(Section):
    """The minimal U-Net of the Hugging Face course: convolutions only, no time and no labels."""

    kind: Literal["basic"]
    channels: Count
    multipliers: Annotated[list[Count], Field(min_length=1)]
    time: Literal[False]
    conditional: Literal[False]


Network = Annotated[UNetNetwork | BasicNetwork, Field(discriminator="kind")]


class Train(Section):
    """The optimisation, Algorithm 1 of the paper."""

    seed: Seed
    steps: Annotated[int, Field(ge=0)]
    batch_size: Count
    accumulate: Count
    learning_rate: Annotated[Number, Field(gt=0)]
    learning_rate_decay: Literal["constant", "linear", "cosine"]
    warmup: Annotated[int, Field(ge=0)]
    betas: Annotated[list[Annotated[Number, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    grad_clip: Annotated[Number, Field(gt=0)] | None
    ema_decay: Annotated[Number, Field(ge=0, lt=1)]
    ema_every: Count
    loss: Literal["simple", "vlb", "hybrid"]
    weighting: Literal["none", "snr", "min_snr"]
    min_snr_gamma: Annotated[Number, Field(gt=0)] | None
    horizontal_flip: bool
    label_dropout: Annotated[Number, Field(ge=0, lt=1)] | None
    precision: Literal["fp32", "bf16"]
    snapshots: list[Count]
    init: str | None


class Sample(Section):
    """The sampler: Algorithm 2 of the paper, DDIM or DPM-Solver++."""

    seed: Seed
    count: Count
    batch_size: Count
    sampler: Literal["ancestral", "ddim", "dpm_solver"]
    steps: Count
    spacing: Literal["leading", "trailing", "linspace", "quad"]
    eta: Annotated[Number, Field(ge=0, le=1)] | None
    sigma: Literal["large", "small"] | None
    clip: bool
    guidance: Annotated[Number, Field(ge=0)] | None
    precision: Literal["fp32", "bf16"]


class Classifier(Section):
    """The training of the small classifier that serves as extractor."""

    channels: Count
    steps: Count
    batch_size: Count
    learning_rate: Annotated[Number, Field(gt=0)]


class Evaluate(Section):
    """The evaluation of the samples and of the model."""

    seed: Seed
    extractor: Literal["classifier", "inception"]
    weights: str | None
    likelihood_images: Annotated[int, Field(ge=0)]
    neighbours: Annotated[int, Field(ge=1, le=64)]
    classifier: Classifier | None


class Runtime(Section):
    """The device, the threads, the files and the logs of a run."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$")]
    threads: Count
    compile: Literal[False, True, "auto"]
    deterministic: bool
    launcher: Annotated[str, Field(min_length=1)] | None
    data_root: str
    resume: bool
    checkpoint_every: Count
    keep_states: Count
    preview_every: Count
    log_every: Count


class Tracking(Section):
    """The MLflow server and experiment."""

    uri: str | None
    experiment: Annotated[str, Field(min_length=1)]
    log_model: bool


class Reported(Section):
    """Metrics reported elsewhere, which the report shows beside this experiment's."""

    source: Annotated[str, Field(min_length=1)]
    metrics: Annotated[dict[Annotated[str, Field(pattern=r"^[a-z]\w*(\.\w+)+$")], Number], Field(min_length=1)]


class Params(Section):
    """The settings of params.yaml that are in use; all others are None."""

    data: Data
    diffusion: Diffusion
    network: Network
    train: Train
    sample: Sample
    evaluate: Evaluate
    runtime: Runtime
    tracking: Tracking
    reported: Reported | None


def load(path: Path) -> Params:
    """Read and check params.yaml. Raises `ParamsError`, with one line per wrong setting, or `FileNotFoundError`."""
    import yaml  # here, so that the sections are usable without PyYAML

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from error
    return check(values, str(path))


def check(values: object, name: str = "params.yaml") -> Params:
    """Convert plain values to `Params` of the settings in use; raise `ParamsError` with all errors."""
    if not isinstance(values, dict):
        raise ParamsError(f"{name} must be a mapping with the sections {', '.join(Params.model_fields)}")
    used = alternatives.in_use(values)
    try:
        Params.model_validate(alternatives.resolve(values))  # also checks the types of most unused settings
        params = Params.model_validate(used)
        conflicts = list(_conflicts(params))
    except ValidationError as error:
        conflicts = [*(complaint(dict(e)) for e in error.errors()), *_broken(alternatives.rules(used), used)]
    if conflicts:
        raise ParamsError("\n  ".join([f"{name} is not usable:", *map(str, conflicts)]))
    return params


def complaint(error: Mapping[str, Any]) -> Conflict:
    """Convert an error of pydantic, about a section or a config from elsewhere."""
    kind, value, (section, *inner) = error["type"], error["input"], map(str, error["loc"])
    rule = error["msg"].replace("Input should be ", "must be ").replace(" should ", " must ")
    if kind.startswith("union_tag"):  # the key that chooses the variant of a section
        inner = [error["ctx"]["discriminator"].strip("'")]
        value = error["ctx"].get("tag")
        rule = f"must be {error['ctx'].get('expected_tags', '').replace(', ', ' or ')}"
    elif section in ("diffusion", "network"):
        inner = inner[1:]  # without the name of the variant
    key = ".".join([section, *inner])
    if kind in ("missing", "union_tag_not_found"):
        value, rule = alternatives.MISSING, "is missing; recipes/default.yaml shows every section and key"
    elif kind == "extra_forbidden":
        rule = "is now called reported" if key == "published" else no_such_key(key, Params)
    elif value is None and key in ("data.image_size", "data.channels"):
        rule = "must be set for source folder; `ddpm data PATH --dry-run` suggests a value"
    return Conflict(key, value, f"{rule[0].lower()}{rule[1:]}")


def _conflicts(params: Params) -> Iterator[Conflict]:
    """The settings in use that break a rule between keys."""
    values = params.model_dump()
    yield from _broken([*alternatives.rules(values), *rules.of_experiment(values)], values)


def model_conflicts(diffusion: Diffusion, network: Network, image_size: int) -> Iterator[Conflict]:
    """The settings of a model that break a rule, also of a model from elsewhere."""
    values = _dumped(diffusion=diffusion, network=network) | {"data": {"image_size": image_size}}
    yield from _broken([*alternatives.rules(values), *rules.of_model(values)], values)


def sampling_conflicts(sample: Sample, diffusion: Diffusion, network: Network) -> Iterator[Conflict]:
    """The settings of a sampler that do not fit a model, also a model from elsewhere."""
    values = _dumped(sample=sample, diffusion=diffusion, network=network)
    own = (rule for rule in alternatives.rules(values) if rule[0].startswith("sample."))
    yield from _broken([*own, *rules.of_sampling(values)], values)


def _dumped(**sections: Section) -> dict[str, Any]:
    return {name: section.model_dump() for name, section in sections.items()}


def _broken(found: Iterable[rules.Rule], values: Mapping[str, Any]) -> Iterator[Conflict]:
    return (Conflict(key, alternatives.look_up(values, key), rule) for key, broken, rule in found if broken)
