"""The schema of params.yaml: every key, its range and unit. ddpm/rules.py has the rules between keys.

The schema has no defaults: all values are in params.yaml or follow from them (ddpm/alternatives.py).
"""

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ddpm import alternatives, rules
from ddpm.errors import UsageError, no_such_key, one_line

_LARGEST = 100_000  # bytes of a params.yaml, ten times those of the default recipe
_SHOWN = 100  # wrong settings that an error lists


class ParamsError(UsageError):
    """params.yaml is not usable; the message names every wrong key with its value and rule."""


@dataclass(frozen=True)
class Conflict:
    """A value that a rule or the other settings do not allow."""

    key: str  # dotted, as after -S
    value: object
    rule: str

    def __str__(self) -> str:
        value = "" if self.value is alternatives.MISSING else f" = {_SHORT.repr(self.value)}"
        return f"{_SHORT.cut(self.key)}{value}: {self.rule}"


class _Short(reprlib.Repr):
    """Values as their `repr`, without the middle of long ones: a value from a file may have any size and depth."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 200
        self.maxlist = self.maxdict = 20

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) < 10**1000 else f"an integer of {x.bit_length():,} bits"

    def cut(self, text: str) -> str:
        """A key, which a file may choose."""
        return text if len(text) <= self.maxstring else f"{text[: self.maxstring]}..."


_SHORT = _Short()


class ConflictError(UsageError):
    """Settings that cannot be used together. Each interface formats `conflicts` with its names of options."""

    def __init__(self, conflicts: Sequence[Conflict]) -> None:
        super().__init__("\n  ".join(map(str, conflicts)))
        self.conflicts = conflicts


def _number(value: object) -> object:
    """Convert text such as `1e-05` to a float: YAML 1.1 requires `1.0e-05` and reads the short form as text."""
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+\.?\d*[eE][+-]?\d+", value) else value


# The bounds are far above what experiments use. They keep every value within the types that hold it, and what one value
# alone decides, such as the depth of the network, within what can be built. ddpm/estimate.py adds up what the values
# need together.
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Beta = Annotated[Number, Field(ge=1e-12, lt=1)]  # below 1e-12, 1 - beta loses its digits in float64
Rate = Annotated[Number, Field(gt=0, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Timesteps = Annotated[int, Field(ge=2, le=100_000)]
Size = Annotated[int, Field(ge=1, le=4096)]  # pixels
Width = Annotated[int, Field(ge=1, le=16_384)]  # channels
Multiplier = Annotated[int, Field(ge=1, le=4096)]
Multipliers = Annotated[list[Multiplier], Field(min_length=1, max_length=13)]  # 4096 pixels halved 12 times are one
Steps = Annotated[int, Field(ge=1, le=1_000_000_000)]  # optimizer steps
StepsOrZero = Annotated[int, Field(ge=0, le=1_000_000_000)]
BatchSize = Annotated[int, Field(ge=1, le=1_000_000)]  # images
ValueRange = Annotated[list[Annotated[Number, Field(ge=-10_000, le=10_000)]], Field(min_length=2, max_length=2)]
Metric = Annotated[Number, Field(ge=-1e15, le=1e15)]
Text = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]  # the longest path of Linux


class Section(BaseModel):
    """A section of params.yaml: immutable, without conversions and without unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """The images, and how they become squares of one size."""

    source: Literal["digits", "shapes", "mnist", "fashion-mnist", "kmnist", "cifar10", "folder"]
    path: Text | None
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    image_size: Annotated[Size, Field(ge=2)]
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
    value_range: ValueRange


class Interpolation(Section):
    """x_t = (1 - a) x_0 + a u, a = t / T, u uniform in the value range: the process of the Hugging Face course."""

    process: Literal["interpolation"]
    timesteps: Timesteps
    prediction: Literal["x_0"]
    variance: Literal["fixed"]
    value_range: ValueRange


Diffusion = Annotated[Gaussian | Interpolation, Field(discriminator="process")]


class UNetNetwork(Section):
    """The U-Net, Appendix B of the paper."""

    kind: Literal["unet"]
    channels: Width
    multipliers: Multipliers
    blocks: Annotated[int, Field(ge=1, le=100)]
    attention: Annotated[list[Size], Field(max_length=13)]
    heads: Width
    groups: Width
    norm_eps: Annotated[Number, Field(ge=1e-12, le=1)]  # a smaller one vanishes beside the variance in float32
    dropout: Annotated[Number, Field(ge=0, lt=1)]
    time: bool
    downsample: Literal["asymmetric", "symmetric"]
    conditional: bool


class BasicNetwork(Section):
    """The minimal U-Net of the Hugging Face course: convolutions only, no time and no labels."""

    kind: Literal["basic"]
    channels: Width
    multipliers: Multipliers
    time: Literal[False]
    conditional: Literal[False]


Network = Annotated[UNetNetwork | BasicNetwork, Field(discriminator="kind")]


_LARGER = (  # section, the key that chooses its variant, the smaller variant, the one with further settings
    ("diffusion", "process", "interpolation", Gaussian),
    ("network", "kind", "basic", UNetNetwork),
)


class Train(Section):
    """The optimisation, Algorithm 1 of the paper."""

    seed: Seed
    steps: StepsOrZero
    batch_size: BatchSize
    accumulate: BatchSize
    learning_rate: Rate
    learning_rate_decay: Literal["constant", "linear", "cosine"]
    warmup: StepsOrZero
    betas: Annotated[list[Annotated[Number, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)]
    grad_clip: Annotated[Number, Field(ge=1e-9, le=1e9)] | None
    ema_decay: Annotated[Number, Field(ge=0, lt=1)]
    ema_every: Steps
    loss: Literal["simple", "vlb", "hybrid"]
    weighting: Literal["none", "snr", "min_snr"]
    min_snr_gamma: Annotated[Number, Field(gt=0, le=1e9)] | None
    horizontal_flip: bool
    label_dropout: Annotated[Number, Field(ge=0, lt=1)] | None
    precision: Literal["fp32", "bf16"]
    snapshots: Annotated[list[Steps], Field(max_length=1000)]
    on_divergence: Literal["stop", "rewind"]
    rewind_every: Steps | None
    init: Text | None


class Sample(Section):
    """The sampler: Algorithm 2 of the paper, DDIM or DPM-Solver++."""

    seed: Seed
    count: Annotated[int, Field(ge=1, le=100_000_000)]
    batch_size: BatchSize
    sampler: Literal["ancestral", "ddim", "dpm_solver"]
    steps: Annotated[int, Field(ge=1, le=100_000)]
    spacing: Literal["leading", "trailing", "linspace", "quad"]
    eta: Annotated[Number, Field(ge=0, le=1)] | None
    sigma: Literal["large", "small"] | None
    clip: bool
    guidance: Annotated[Number, Field(ge=0, le=1000)] | None
    precision: Literal["fp32", "bf16"]


class Classifier(Section):
    """The training of the small classifier that serves as extractor."""

    channels: Annotated[int, Field(ge=1, le=1024)]
    steps: Steps
    batch_size: BatchSize
    learning_rate: Rate


class Evaluate(Section):
    """The evaluation of the samples and of the model."""

    seed: Seed
    extractor: Literal["classifier", "inception"]
    weights: Text | None
    likelihood_images: Annotated[int, Field(ge=0, le=100_000_000)]
    neighbours: Annotated[int, Field(ge=1, le=64)]
    classifier: Classifier | None


class Runtime(Section):
    """The device, the threads, the files and the logs of a run."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d{1,2})?|mps)$")]
    threads: Annotated[int, Field(ge=1, le=1024)]
    compile: Literal[False, True, "auto"]
    deterministic: bool
    launcher: Annotated[Text, Field(min_length=1)] | None
    data_root: Text
    resume: bool
    checkpoint_every: Steps
    keep_states: Annotated[int, Field(ge=1, le=1000)]
    stall_minutes: Annotated[Number, Field(gt=0, le=100_000)] | None
    preview_every: Steps
    log_every: Steps


class Tracking(Section):
    """The MLflow server and experiment."""

    uri: Text | None
    experiment: Annotated[Text, Field(min_length=1, max_length=256)]
    log_model: bool


class Reported(Section):
    """Metrics reported elsewhere, which the report shows beside this experiment's."""

    source: Annotated[Text, Field(min_length=1)]
    metrics: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z]\w*(\.\w+)+$", max_length=256)], Metric],
        Field(min_length=1, max_length=100),
    ]


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
    return check(read(path), str(path))


def read(path: Path, name: str | None = None) -> object:
    """Parse params.yaml, which messages call `name`. Raises `ParamsError` or `FileNotFoundError`."""
    import yaml  # here, so that the sections are usable without PyYAML

    name = name or str(path)
    if path.stat().st_size > _LARGEST:
        raise ParamsError(f"{name} is larger than {_LARGEST:,} bytes: it holds settings, not data")
    try:
        # Not the parser in C: it crashes at the end of its stack if lists are nested deeply.
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise
    except RecursionError as error:
        raise ParamsError(f"{name} is not valid YAML: it is nested too deeply") from error
    except Exception as error:  # PyYAML raises errors of many kinds for values that a tag or a date cannot have
        raise ParamsError(f"{name} is not valid YAML: {one_line(error)[:1000]}") from error


def check(values: object, name: str = "params.yaml") -> Params:
    """Convert plain values to `Params` of the settings in use; raise `ParamsError` with all errors."""
    if not isinstance(values, dict):
        raise ParamsError(f"{name} must be a mapping with the sections {', '.join(Params.model_fields)}")
    used = alternatives.in_use(values)
    try:
        Params.model_validate(alternatives.resolve(values))  # also the settings that are not in use
        params = Params.model_validate(used)
        conflicts = list(_conflicts(params))
    except ValidationError as error:
        conflicts = [*(complaint(dict(e)) for e in error.errors()), *_broken(alternatives.rules(used), used)]
    conflicts += _of_other_variant(values)
    if conflicts:
        more = [f"and {len(conflicts) - _SHOWN:,} more"] if len(conflicts) > _SHOWN else []
        raise ParamsError("\n  ".join([f"{name} is not usable:", *map(str, conflicts[:_SHOWN]), *more]))
    return params


def broken_rule(error: Mapping[str, Any]) -> str:
    """The rule of an error of pydantic, such as "must be at most 1,000,000"."""
    words = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
    if error["type"] in words:
        bound, key = words[error["type"]]
        return f"must be {bound} {error['ctx'][key]:,.12g}"
    return str(error["msg"]).replace("Input should be ", "must be ").replace(" should ", " must ")


def complaint(error: Mapping[str, Any]) -> Conflict:
    """Convert an error of pydantic, about a section or a config from elsewhere."""
    kind, value, (section, *inner) = error["type"], error["input"], map(str, error["loc"])
    rule = broken_rule(error)
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
    elif kind == "string_pattern_mismatch" and key == "runtime.device":
        rule = "must be auto, cpu, cuda, cuda:N with N at most 99, or mps"
    elif kind == "string_pattern_mismatch" and "\\x00" in rule:
        rule = "must not contain a null character"
    elif value is None and key in ("data.image_size", "data.channels"):
        rule = "must be set for source folder; `ddpm data PATH --dry-run` suggests a value"
    return Conflict(key, value, f"{rule[0].lower()}{rule[1:]}")


def _of_other_variant(values: Mapping[str, Any]) -> Iterator[Conflict]:
    """The wrong values of settings that only the larger variant of a section uses, which is not chosen."""
    resolved = alternatives.resolve(values)
    for section, tag, chosen, larger in _LARGER:
        given = values.get(section)
        if isinstance(given, Mapping) and given.get(tag) == chosen:
            rest = {name: value for name, value in given.items() if value is not None}
            unused = {name for name, value in rest.items() if resolved[section].get(name) != value}
            try:
                larger.model_validate(rest)
            except ValidationError as error:
                own = (e for e in error.errors() if e["loc"][0] in unused & larger.model_fields.keys())
                yield from (complaint({**e, "loc": (section, "", *e["loc"])}) for e in own)


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
