"""params.yaml is checked whole, errors name key, value and rule, and one key switches one thing."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from ddpm import params
from ddpm.alternatives import in_use

COMMITTED = Path(__file__).parents[1] / "params.yaml"

LEARNED = {"diffusion.variance": "learned", "train.loss": "hybrid"}
ANCESTRAL = {"sample.sampler": "ancestral"}
INTERPOLATION = {"diffusion.process": "interpolation"}
BASIC = {"network.kind": "basic"}
CONDITIONAL = {"network.conditional": True}
FOLDER = {"data.source": "folder", "data.path": "a.zip", "data.image_size": 8, "data.channels": 3}


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The committed values with some of them, by dotted keys, set to others."""
    values: dict[str, Any] = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = values
        for section in sections:
            target = target[section]
        target[last] = value
    return values


def complaints(changes: dict[str, Any]) -> list[str]:
    """The lines of the error that the changes cause, without the opening one."""
    with pytest.raises(params.ParamsError) as caught:
        params.check(changed(changes))
    first, *lines = str(caught.value).splitlines()
    assert first == "params.yaml is not usable:"
    return [line.strip() for line in lines]


def test_the_committed_file_is_usable() -> None:
    assert params.load(COMMITTED).model_dump() == in_use(changed({}))


def test_parameters_cannot_be_changed_once_read() -> None:
    loaded = params.load(COMMITTED)
    with pytest.raises(ValidationError, match="frozen"):
        loaded.train.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "value"), [("1e-05", 1e-05), ("2e-4", 2e-4), ("3E0", 3.0), ("1.5e2", 150.0), ("+4e1", 40.0)]
)
def test_exponents_that_yaml_reads_as_text_become_floats(text: str, value: float) -> None:
    read = yaml.safe_load(text)
    assert isinstance(read, str)
    assert params.check(changed({"train.learning_rate": read})).train.learning_rate == value


def test_exponents_are_read_inside_lists_and_optional_values() -> None:
    loaded = params.check(changed({"train.betas": ["9e-1", "99e-2"], "train.grad_clip": "5e-1"}))
    assert loaded.train.betas == [0.9, 0.99]
    assert loaded.train.grad_clip == 0.5


@pytest.mark.parametrize("key", ["train.steps", "train.seed", "network.channels", "data.image_size"])
def test_text_is_not_an_integer(key: str) -> None:
    assert complaints({key: "1e3"}) == [f"{key} = '1e3': must be a valid integer"]


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("train.learning_rate", "abc", "must be a valid number"),
        ("train.learning_rate", "0.1", "must be a valid number"),
        ("train.learning_rate", True, "must be a valid number"),
        ("train.learning_rate", 0.0, "must be greater than 0"),
        ("train.learning_rate", float("nan"), "must be a finite number"),
        ("train.steps", True, "must be a valid integer"),
        ("train.steps", 10.0, "must be a valid integer"),
        ("train.steps", -1, "must be at least 0"),
        ("train.seed", 2**63, f"must be less than {2**63}"),
        ("train.horizontal_flip", "yes", "must be a valid boolean"),
        ("train.horizontal_flip", 1, "must be a valid boolean"),
        ("train.ema_decay", 1.0, "must be less than 1"),
        ("train.precision", "fp16", "must be 'fp32' or 'bf16'"),
        ("data.source", "imagenet", "'kmnist', 'cifar10' or 'folder'"),
        ("data.channels", 2, "must be 1 or 3"),
        ("data.image_size", 1, "must be at least 2"),
        ("network.dropout", -0.1, "must be at least 0"),
        ("network.multipliers", [], ": list must have at least 1 item"),
        ("network.multipliers", "12", "must be a valid list"),
        ("sample.clip", None, "must be a valid boolean"),
        ("sample.guidance", -0.5, "must be at least 0"),
        ("sample.eta", 1.5, "must be at most 1"),
        ("evaluate.neighbours", 65, "must be at most 64"),
        ("runtime.device", "gpu", "must be auto, cpu, cuda, cuda:N with N at most 99, or mps"),
        ("tracking.experiment", "", ": string must have at least 1 character"),
    ],
)
def test_error_names_a_wrong_value_and_its_rule(key: str, value: object, rule: str) -> None:
    line = complaints({key: value})[0]
    assert line.startswith(f"{key} = {value!r}: ")
    assert rule in line


def test_a_number_too_large_for_a_float_is_refused() -> None:
    assert complaints({"train.learning_rate": "1e400"}) == ["train.learning_rate = inf: must be a finite number"]


def test_error_names_the_index_of_a_wrong_list_item() -> None:
    assert complaints({"train.betas": [0.9, "x"]}) == ["train.betas.1 = 'x': must be a valid number"]


def test_error_names_an_unknown_key() -> None:
    assert complaints({"model": {}}) == ["model = {}: there is no such key"]
    assert complaints({"train.lr": 3}) == ["train.lr = 3: there is no such key"]


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.learningrate", "train.learning_rate"),
        ("train.learning-rate", "train.learning_rate"),
        ("evaluate.classifier.step", "evaluate.classifier.steps"),
        ("network.bocks", "network.blocks"),
        ("train ", "train"),
    ],
)
def test_error_names_the_nearest_key_beside_an_unknown_one(key: str, nearest: str) -> None:
    values = changed({})
    *sections, name = key.split(".")
    inner = values
    for section in sections:
        inner = inner[section]
    inner[name] = 3
    with pytest.raises(params.ParamsError, match=f"  {key} = 3: there is no such key; the nearest is {nearest}$"):
        params.check(values)


@pytest.mark.parametrize(
    ("key", "allowed"), [("network.kind", "'unet' or 'basic'"), ("diffusion.process", "'gaussian' or 'interpolation'")]
)
def test_error_names_the_key_that_chooses_the_variant_of_a_section(key: str, allowed: str) -> None:
    section, tag = key.split(".")
    assert complaints({key: "x"}) == [f"{key} = 'x': must be {allowed}"]
    values = changed({})
    del values[section][tag]
    with pytest.raises(params.ParamsError, match=f"{key}: is missing; recipes/default.yaml shows"):
        params.check(values)


def test_error_names_a_missing_section_or_key() -> None:
    values = changed({})
    del values["sample"], values["train"]["betas"]
    with pytest.raises(params.ParamsError) as caught:
        params.check(values)
    rule = "is missing; recipes/default.yaml shows every section and key"
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [f"train.betas: {rule}", f"sample: {rule}"]


def test_all_wrong_values_are_reported_at_once() -> None:
    assert complaints({"data.fit": "squeeze", "train.stepz": 7, "evaluate.classifier.channels": 0}) == [
        "data.fit = 'squeeze': must be 'pad', 'resize' or 'crop'",
        "train.stepz = 7: there is no such key; the nearest is train.steps",
        "evaluate.classifier.channels = 0: must be at least 1",
    ]


def test_a_folder_needs_path_size_and_channels_which_are_reported_at_once() -> None:
    rule = "None: must be set for source folder"
    advice = "; `ddpm data PATH --dry-run` suggests a value"
    assert complaints({"data.source": "folder"}) == [
        f"data.image_size = {rule}{advice}",
        f"data.channels = {rule}{advice}",
        f"data.path = {rule}",
    ]


def test_all_conflicts_are_reported_at_once() -> None:
    changes = {"data.image_size": 7, "sample.steps": 1001, "train.accumulate": 3, "sample.eta": None}
    assert complaints(changes) == [
        "sample.eta = None: must be set for sampler ddim",
        "data.image_size = 7: must be a multiple of 2, because the levels of network.multipliers = [1, 2] halve it",
        "train.accumulate = 3: must divide train.batch_size = 64 into equal micro-batches",
        "sample.steps = 1001: must be at most diffusion.timesteps = 1000",
    ]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data.image_size": 12, "network.multipliers": [1, 1, 1, 2]}, "data.image_size = 12: must be a multiple of 8"),
        (
            {**BASIC, "network.multipliers": [1, 2, 2], "data.image_size": 10},
            "data.image_size = 10: must be a multiple",
        ),
        (
            {"network.groups": 5},
            "network.groups = 5: must divide the channels of every level, but does not divide [32,",
        ),
        (
            {"data.image_size": 2, "network.channels": 8},
            "network.groups = 8: must be less than the channels of the last two levels: their feature maps are reduced",
        ),
        ({"network.heads": 7}, "network.heads = 7: must divide the channels of every level, but does not divide [32, "),
        ({"network.channels": 2, "network.groups": 2}, "network.channels = 2: must be even and at least 4"),
        ({"network.channels": 9, "network.groups": 3}, "network.channels = 9: must be even and at least 4"),
        ({**BASIC, **LEARNED}, "diffusion.variance = 'learned': must be fixed, because the basic network"),
        ({"diffusion.beta_start": 0.5}, "diffusion.beta_start = 0.5: must not be above diffusion.beta_end = 0.02"),
        ({"diffusion.timesteps": 20_000}, "diffusion.timesteps = 20000: with beta from 0.0001 to 0.02 too little si"),
        ({"diffusion.beta_end": 0.9}, "diffusion.timesteps = 1000: with beta from 0.0001 to 0.9 too little sig"),
        ({"diffusion.value_range": [1.0, 1.0]}, "diffusion.value_range = [1.0, 1.0]: must be [low, high]"),
        ({"diffusion.schedule": "jsd"}, "diffusion.prediction = 'eps': must be x_0, v or mu, because jsd leaves"),
        ({"diffusion.variance": "learned"}, "train.loss = 'simple': does not train the learned variance; use vlb or"),
        ({"train.loss": "hybrid"}, "train.loss = 'hybrid': adds the bound for a learned variance, but diffusion.var"),
        ({"train.snapshots": [20, 10]}, "train.snapshots = [20, 10]: must be increasing and at most train.steps"),
        ({"train.snapshots": [10, 10]}, "train.snapshots = [10, 10]: must be increasing"),
        ({"train.snapshots": [10, 9999]}, "train.snapshots = [10, 9999]: must be increasing and at most train.steps"),
        ({"train.steps": 0}, "train.steps = 0: without training, train.init must name the model"),
        ({"train.weighting": "snr", "train.loss": "vlb"}, "train.weighting = 'snr': applies only to the losses"),
        ({"train.weighting": "snr", "diffusion.prediction": "mu"}, "train.weighting = 'snr': applies only to the"),
        (
            {**CONDITIONAL, "train.label_dropout": 0.0, "sample.guidance": None},
            "sample.guidance = None: must be 0 (no guidance): with train.label_dropout = 0 no image",
        ),
        ({**CONDITIONAL, "train.label_dropout": 0.0, "sample.guidance": 0.5}, "sample.guidance = 0.5: must be 0 (no"),
        (
            {"sample.steps": 1, "sample.spacing": "leading"},
            "sample.steps = 1: with leading spacing the only step is t = 1",
        ),
        ({"sample.steps": 1, "sample.spacing": "quad"}, "sample.steps = 1: with quad spacing the only step"),
        (
            {**LEARNED, **ANCESTRAL, "sample.steps": 500},
            "sample.steps = 500: a learned variance applies to single step",
        ),
        (
            {**LEARNED, **ANCESTRAL, "sample.steps": 1000, "sample.spacing": "quad"},
            "sample.steps = 1000: a learned variance applies to single steps: use all 1000 without quad spacing",
        ),
        ({**INTERPOLATION, "train.loss": "vlb"}, "train.loss = 'vlb': must be simple, because the interp"),
        ({**INTERPOLATION, "train.loss": "hybrid"}, "train.loss = 'hybrid': must be simple, because the inter"),
        ({**INTERPOLATION, "train.weighting": "snr"}, "train.weighting = 'snr': applies only to the losses simple"),
        ({**INTERPOLATION, "sample.spacing": "leading"}, "sample.spacing = 'leading': must be trailing or linspace"),
        ({**INTERPOLATION, "sample.sampler": "dpm_solver"}, "sample.sampler = 'dpm_solver': must be ddim for the inte"),
        ({**INTERPOLATION, **ANCESTRAL}, "sample.sampler = 'ancestral': must be ddim for the interpolation process"),
        ({**INTERPOLATION, "evaluate.likelihood_images": 5}, "evaluate.likelihood_images = 5: must be 0, because the"),
        (
            {
                "data.image_size": 4,
                "evaluate.classifier": {"channels": 4, "steps": 9, "batch_size": 1, "learning_rate": 1.0},
            },
            "evaluate.classifier.batch_size = 1: must be at least 2 for data.image_size up to 4, because its ba",
        ),
        ({"diffusion.beta_end": None}, "diffusion.beta_end = None: must be set for schedule linear or quad or const"),
        (
            {"diffusion.schedule": "warmup50", "diffusion.beta_start": None},
            "diffusion.beta_start = None: must be set for schedule linear or quad or warmup10 or warmup50",
        ),
        ({"sample.eta": None}, "sample.eta = None: must be set for sampler ddim"),
        (
            {**ANCESTRAL, "sample.sigma": None},
            "sample.sigma = None: must be set for sampler ancestral, variance fixed",
        ),
        (
            {"train.weighting": "min_snr", "train.min_snr_gamma": None},
            "train.min_snr_gamma = None: must be set for weighting min_snr",
        ),
        (
            {**CONDITIONAL, "train.label_dropout": None},
            "train.label_dropout = None: must be set for conditional models",
        ),
        (
            {"train.on_divergence": "rewind", "train.rewind_every": None},
            "train.rewind_every = None: must be set for on_divergence rewind",
        ),
        ({"evaluate.classifier": None}, "evaluate.classifier = None: must be set for extractor classifier"),
        ({"data.seed": None}, "data.seed = None: must be set for source digits or shapes or folder"),
        ({**FOLDER, "data.path": None}, "data.path = None: must be set for source folder"),
        ({**FOLDER, "data.seed": None}, "data.seed = None: must be set for source digits or shapes or folder"),
        (
            {**FOLDER, "data.image_size": None},
            "data.image_size = None: must be set for source folder; `ddpm data PATH ",
        ),
    ],
)
def test_a_conflict_names_its_key_value_and_rule(changes: dict[str, Any], complaint: str) -> None:
    (line,) = complaints(changes)
    assert line.startswith(complaint)


@pytest.mark.parametrize(
    "change",
    [
        {"sample.sampler": "ancestral"},
        {"sample.sampler": "dpm_solver"},
        *[{"diffusion.schedule": name} for name in ("quad", "const", "warmup10", "warmup50", "cosine", "sigmoid")],
        {"diffusion.process": "interpolation"},
        {"diffusion.prediction": "v"},
        {"network.kind": "basic"},
        {"network.conditional": True},
        {"train.weighting": "min_snr"},
        {"train.grad_clip": None},
        {"evaluate.extractor": "inception"},
        *[{"data.source": name} for name in ("mnist", "fashion-mnist", "kmnist", "cifar10")],
        {"data.image_size": 6},
    ],
)
def test_one_key_switches_one_thing(change: dict[str, Any]) -> None:
    ((key, value),) = change.items()
    assert by_key(params.check(changed(change)).model_dump())[key] == value


# Under each change, the settings of params.yaml that are not in use.
GAUSSIAN_ONLY = {"diffusion.schedule", "diffusion.beta_start", "diffusion.beta_end"}
UNET_ONLY = {
    f"network.{key}" for key in ("blocks", "attention", "heads", "groups", "norm_eps", "dropout", "downsample")
}
LABELS = {"train.label_dropout", "sample.guidance"}
IDLE = LABELS | {"data.path", "data.digest", "train.min_snr_gamma", "train.rewind_every"}
IDLE |= {"sample.sigma", "evaluate.weights"}


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({}, IDLE),
        ({"sample.sampler": "ancestral"}, IDLE - {"sample.sigma"} | {"sample.eta"}),
        ({"sample.sampler": "ancestral", **LEARNED, "sample.steps": 1000}, IDLE | {"sample.eta"}),
        ({"sample.sampler": "dpm_solver"}, IDLE | {"sample.eta"}),
        ({"diffusion.schedule": "const"}, IDLE | {"diffusion.beta_start"}),
        ({"diffusion.schedule": "sigmoid"}, IDLE | {"diffusion.beta_start", "diffusion.beta_end"}),
        ({"diffusion.schedule": "warmup10"}, IDLE),
        (INTERPOLATION, IDLE | GAUSSIAN_ONLY),
        (BASIC, IDLE | UNET_ONLY),
        ({**BASIC, **CONDITIONAL}, IDLE | UNET_ONLY),
        (CONDITIONAL, IDLE - LABELS),
        ({"train.weighting": "min_snr"}, IDLE - {"train.min_snr_gamma"}),
        ({"train.on_divergence": "rewind"}, IDLE - {"train.rewind_every"}),
        ({"evaluate.extractor": "inception"}, IDLE - {"evaluate.weights"} | {"evaluate.classifier"}),
        ({"data.source": "mnist"}, IDLE | {"data.seed"}),
        (FOLDER, IDLE - {"data.path", "data.digest"}),
    ],
)
def test_settings_of_alternatives_that_are_not_chosen_are_ignored(changes: dict[str, Any], idle: set[str]) -> None:
    given = {"data.path": "b.zip", "data.digest": "0" * 64, "evaluate.weights": "w.pth"}
    values = changed(given | changes)
    used = by_key(in_use(values))
    assert {key for key, value in by_key(values).items() if value is not None and used.get(key) is None} == idle
    assert by_key(params.check(values).model_dump()) == used


def by_key(values: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for section in values for key, value in (values[section] or {}).items()}


def test_settings_in_use_keep_their_values_and_the_argument_is_unchanged() -> None:
    values = changed({"sample.sampler": "ancestral", "sample.sigma": "small"})
    before = copy.deepcopy(values)
    used = in_use(values)
    assert values == before
    assert used["sample"] == values["sample"] | {"eta": None, "guidance": None}
    assert in_use(used) == used


@pytest.mark.parametrize(
    ("source", "shape"),
    [("digits", (8, 1)), ("mnist", (28, 1)), ("fashion-mnist", (28, 1)), ("kmnist", (28, 1)), ("cifar10", (32, 3))],
)
def test_image_size_and_channels_follow_the_source_unless_they_are_set(source: str, shape: tuple[int, int]) -> None:
    data = params.check(changed({"data.source": source})).data
    assert (data.image_size, data.channels) == shape
    data = params.check(changed({"data.source": source, "data.image_size": 16, "data.channels": 3})).data
    assert (data.image_size, data.channels) == (16, 3)


def test_attention_is_where_feature_maps_have_its_sizes() -> None:
    for size, attention in ((8, [8, 4]), (16, [8]), (28, [])):
        changes = {"data.image_size": size, "network.attention": [8, 4, 2]}
        assert params.check(changed(changes)).network.model_dump()["attention"] == attention


def test_the_smaller_variants_of_sections_have_fixed_settings() -> None:
    interpolation = params.check(
        changed({**INTERPOLATION, "diffusion.prediction": "v", "diffusion.variance": "learned"})
    )
    assert (interpolation.diffusion.prediction, interpolation.diffusion.variance) == ("x_0", "fixed")
    assert interpolation.sample.eta == 0
    basic = params.check(changed({**BASIC, **CONDITIONAL})).network
    assert basic.model_dump() == {
        "kind": "basic",
        "channels": 32,
        "multipliers": [1, 2],
        "time": False,
        "conditional": False,
    }


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"sample.sigma": "huge"}, "sample.sigma = 'huge': must be 'large' or 'small'"),
        ({"data.seed": -1, "data.source": "mnist"}, "data.seed = -1: must be at least 0"),
        ({"train.label_dropout": 1.5}, "train.label_dropout = 1.5: must be less than 1"),
        ({**INTERPOLATION, "diffusion.stepz": 3}, "diffusion.stepz = 3: there is no such key"),
        ({**BASIC, "network.colour": 3}, "network.colour = 3: there is no such key"),
        ({**BASIC, "network.heads": 0}, "network.heads = 0: must be at least 1"),
        ({**BASIC, "network.time": "never"}, "network.time = 'never': must be a valid boolean"),
        ({**BASIC, "network.attention": [0]}, "network.attention.0 = 0: must be at least 1"),
        ({**INTERPOLATION, "diffusion.beta_end": 2.0}, "diffusion.beta_end = 2.0: must be less than 1"),
        (
            {**INTERPOLATION, "diffusion.variance": "free"},
            "diffusion.variance = 'free': must be 'fixed', 'learned' or 'learned_range'",
        ),
    ],
)
def test_settings_that_are_not_in_use_are_checked_too(changes: dict[str, Any], line: str) -> None:
    assert complaints(changes) == [line]


def test_settings_in_use_may_be_null_where_null_has_a_meaning() -> None:
    for changes in (CONDITIONAL | {"sample.guidance": None}, FOLDER, {"evaluate.extractor": "inception"}):
        params.check(changed(changes))


def test_a_file_with_null_for_all_that_is_not_in_use_gives_the_same_settings() -> None:
    for changes in (
        {},
        ANCESTRAL,
        INTERPOLATION,
        BASIC,
        {"data.source": "cifar10"},
        {"evaluate.extractor": "inception"},
    ):
        assert params.check(in_use(changed(changes))) == params.check(changed(changes))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"sample": None, "network": 3},
        {"sample": {"sampler": ["ddim"]}},
        {"network": {"kind": {}, "attention": "x"}},
        {"data": {"source": [1]}, "train": {"steps": 3}},
        {"sample": {"eta": 0.5}},
    ],
)
def test_incomplete_values_are_unchanged(values: dict[str, Any]) -> None:
    assert in_use(values) == values


def test_error_names_the_new_name_of_the_section_published() -> None:
    values = changed({})
    values["published"] = values.pop("reported")
    with pytest.raises(params.ParamsError, match="published = None: is now called reported"):
        params.check(values)


def test_sampling_conflicts_name_settings_that_the_sampler_does_not_use() -> None:
    chosen = params.check(changed({}))
    sample = chosen.sample.model_copy(update={"sampler": "dpm_solver", "sigma": "small"})
    found = list(params.sampling_conflicts(sample, chosen.diffusion, chosen.network))
    assert found == [
        params.Conflict("sample.eta", 1.0, "applies only to sampler ddim"),
        params.Conflict("sample.sigma", "small", "applies only to sampler ancestral, variance fixed"),
    ]
    assert str(found[0]) == "sample.eta = 1.0: applies only to sampler ddim"


@pytest.mark.parametrize("content", ["", "- 1\n", "text\n"])
def test_error_names_a_file_that_is_not_a_mapping(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(params.ParamsError, match=rf"{path} must be a mapping with the sections data, diffusion, "):
        params.load(path)


def test_error_names_file_and_line_of_invalid_yaml(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("data:\n  source: [\n")
    with pytest.raises(params.ParamsError, match=rf"(?s){path} is not valid YAML: .*line 3"):
        params.load(path)


def test_error_names_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes("data: {}  # Größe\n".encode("latin-1"))
    with pytest.raises(params.ParamsError, match=rf"{path} is not valid YAML: .*utf-8"):
        params.load(path)


def test_a_missing_file_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"params\.yaml"):
        params.load(tmp_path / "params.yaml")
