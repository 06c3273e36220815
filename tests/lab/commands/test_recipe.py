"""Recipes: every one is usable, keeps the comments, and changes the default recipe only."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from dvc.utils.hydra import apply_overrides

from ddpm import params
from ddpm.data import shapes
from ddpm.errors import UsageError
from ddpm.network.modelfile import Description
from lab.commands import recipe
from lab.experiment.dvcfile import flatten
from tests.lab.conftest import ROOT

FOLDER = ROOT / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
DEFAULT = (FOLDER / "default.yaml").read_text(encoding="utf-8")
Composed = Callable[[str], str]


@pytest.fixture
def composed(tmp_path: Path) -> Composed:
    """A function that composes a recipe from its text."""
    (tmp_path / "default.yaml").write_text(DEFAULT, encoding="utf-8")

    def compose(text: str) -> str:
        (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
        return recipe.compose("x", tmp_path)

    return compose


def differences(text: str) -> list[tuple[str, str]]:
    """The lines below the first in which the text, of as many lines as the default, differs from it."""
    lines = zip(DEFAULT.splitlines()[1:], text.splitlines()[1:], strict=True)
    return [(old, new) for old, new in lines if old != new]


def comments(text: str) -> set[str]:
    """All comments but the first line, which describes the recipe."""
    return {line.split("#", 1)[1].strip() for line in text.splitlines()[1:] if "#" in line}


def test_the_committed_parameters_are_the_default_recipe() -> None:
    assert (ROOT / "params.yaml").read_bytes() == (FOLDER / "default.yaml").read_bytes()


def test_the_default_recipe_is_written_unchanged() -> None:
    assert recipe.compose("default", FOLDER) == DEFAULT


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_a_recipe_is_in_use(name: str) -> None:
    settings = flatten(loaded(name).model_dump())
    changes = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert flatten({section: values for section, values in changes.items() if values}).items() <= (
        settings.items() if name != "default" else flatten(yaml.safe_load(DEFAULT)).items()
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_keeps_all_comments_of_the_default(name: str) -> None:
    assert comments(DEFAULT) <= comments(recipe.compose(name, FOLDER))


@pytest.mark.parametrize("name", NAMES)
def test_the_description_of_a_recipe_has_images_parameters_and_hardware_in_one_line_of_the_list(name: str) -> None:
    description = recipe.names(FOLDER)[name]
    settings = loaded(name)
    assert len(f"{name:<{max(map(len, NAMES))}}  {description}") <= 100
    assert f", {parameters(settings) / 1e6:.1f}M parameters" in description
    assert description.endswith((": a GPU", "minutes", "a minute", "half an hour"))
    size = f"{settings.data.image_size}x{settings.data.image_size}"
    assert size in description or name in ("ci", "cifar10-jpeg")


@pytest.mark.parametrize("name", NAMES)
def test_params_yaml_begins_with_the_description_of_its_recipe(name: str) -> None:
    assert recipe.compose(name, FOLDER).splitlines()[0] == f"# {recipe.names(FOLDER)[name]}"


def test_params_yaml_begins_with_the_name_of_a_recipe_without_a_description(composed: Composed) -> None:
    assert composed("train:\n  steps: 77\n").splitlines()[0] == "# Recipe x"


def loaded(name: str) -> params.Params:
    return params.check(yaml.safe_load(recipe.compose(name, FOLDER)))


def parameters(settings: params.Params) -> int:
    """The number of parameters of the recipe's network. Conditional recipes are those of digits and of shapes."""
    data = settings.data
    classes = shapes.CLASSES if data.source == "shapes" else [str(digit) for digit in range(10)]
    shape = (data.channels, data.image_size, data.image_size)
    with torch.device("meta"):
        network = Description(settings.diffusion, settings.network, shape, classes).build()
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_has_the_parameters_that_the_documentation_states(name: str) -> None:
    stated = f"{parameters(loaded(name)):,}"
    assert row(name)["parameters"] == stated
    comment = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"[\d,]+(?= parameters)", comment)) <= {stated}


def row(name: str) -> dict[str, str]:
    """What the documentation states of a recipe, by the heads of its columns."""
    lines = (ROOT / "docs/recipes.md").read_text(encoding="utf-8").splitlines()
    head, line = (next(line for line in lines if line.startswith(start)) for start in ("| recipe | ", f"| `{name}` | "))
    return dict(zip(head.strip("| ").split(" | "), line.strip("| ").split(" | "), strict=True))


def optimiser(train: params.Train) -> str:
    rate = f"{train.learning_rate:.0e}".replace("e-0", "e-")
    decay = {"constant": "", "cosine": " by a cosine", "linear": ", linearly to zero"}[train.learning_rate_decay]
    return "".join(
        [
            f"{rate} × {train.batch_size}",
            " in bf16" * (train.precision == "bf16"),
            " in two parts" * (train.accumulate == 2),
            decay,
            ", betas .9 and .99" * (train.betas == [0.9, 0.99]),
            f", warm-up {train.warmup}" * (train.warmup > 0),
            f", clip {train.grad_clip or 0:g}" * (train.grad_clip is not None),
        ]
    )


def average(train: params.Train) -> str:
    decay = f"{train.ema_decay:g}".removeprefix("0") or "none"
    return decay + f" every {train.ema_every}" * (train.ema_every > 1)


def sampler(sample: params.Sample) -> str:
    parts = [f"{sample.sampler.replace('ddim', 'DDIM')} {sample.steps}", f"eta {sample.eta or 0:g}", sample.sigma]
    parts += ["not clipped" * (not sample.clip), f"guidance {sample.guidance or 0:g}"]
    there = (True, sample.eta is not None, sample.sigma, not sample.clip, sample.guidance is not None)
    return ", ".join(str(part) for part, given in zip(parts, there, strict=True) if given)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_trains_and_samples_as_the_documentation_states(name: str) -> None:
    settings, stated = loaded(name), row(name)
    assert stated["optimiser"] == optimiser(settings.train)
    assert stated["EMA"] == average(settings.train)
    assert stated["sampler"] == sampler(settings.sample)
    assert stated["budget"].partition(" (")[0] == f"{settings.train.steps:,} steps"
    assert ("flips" in stated["data"]) == settings.train.horizontal_flip
    assert ("labels" in stated["data"]) == settings.network.conditional
    assert f"{settings.diffusion.prediction}" in stated["process and objective"]
    assert ("T 4" in stated["process and objective"]) == (settings.diffusion.timesteps != 1000)


def test_the_papers_networks_are_the_authors() -> None:
    assert parameters(loaded("ho2020-cifar10")) == 35_746_307
    for name in ("ho2020-celebahq-256", "ho2020-lsun-256"):
        assert parameters(loaded(name)) == 113_673_219


def test_the_papers_cifar_and_256_pixel_models_differ_as_in_its_appendix() -> None:
    small, large = loaded("ho2020-cifar10"), loaded("ho2020-lsun-256")
    assert (small.train.steps, small.train.batch_size, small.train.learning_rate) == (800_000, 128, 2e-4)
    assert (large.train.steps, large.train.batch_size, large.train.learning_rate) == (2_400_000, 64, 2e-5)
    assert (small.sample.sigma, large.sample.sigma) == ("large", "small")
    for settings, dropout in ((small, 0.1), (large, 0.0)):
        assert (settings.network.dropout, settings.network.attention, settings.network.groups) == (dropout, [16], 32)
        assert (settings.train.warmup, settings.train.ema_decay, settings.train.grad_clip) == (5000, 0.9999, 1.0)
        assert (settings.sample.steps, settings.sample.count, settings.sample.clip) == (1000, 50_000, True)


@pytest.mark.parametrize(("name", "count"), [("hf-course-toy", 309_057), ("hf-course-unet", 1_707_009)])
def test_networks_and_epochs_of_the_course_recipes_are_exact(name: str, count: int) -> None:
    settings = loaded(name)
    assert parameters(settings) == count
    assert not settings.network.time
    assert settings.train.steps * settings.train.batch_size == pytest.approx(3 * 60_000, abs=128)
    assert settings.train.steps == 3 * settings.runtime.log_every  # so that a point of the curve is an epoch
    assert (settings.train.ema_decay, settings.train.grad_clip, settings.train.warmup) == (0, None, 0)


STEPS = next(line for line in DEFAULT.splitlines() if "# optimizer steps" in line)


def test_changes_keep_everything_else_and_the_comments_beside_them(composed: Composed) -> None:
    text = composed("# Mine\ntrain:\n  steps: 77\n  learning_rate: 2e-4\n")
    assert differences(text) == [
        (STEPS, "  steps: 77               # optimizer steps"),
        ("  learning_rate: 1.0e-3   # Adam, after the warm-up", "  learning_rate: 2e-4     # Adam, after the warm-up"),
    ]
    assert params.check(yaml.safe_load(text)).train.learning_rate == 2e-4


def test_nested_values_are_changed_in_place(composed: Composed) -> None:
    text = composed("evaluate:\n  classifier:\n    steps: 5\n")
    assert differences(text) == [("    steps: 600", "    steps: 5")]


def test_lists_are_replaced_whole(composed: Composed) -> None:
    text = composed("network:\n  multipliers: [2]\n  attention: []\n")
    values = yaml.safe_load(text)["network"]
    assert (values["multipliers"], values["attention"]) == ([2], [])
    assert comments(DEFAULT) == comments(text)


def test_long_values_are_kept(composed: Composed) -> None:
    path = " ".join(["a folder of a long name"] * 9)
    assert yaml.safe_load(composed(f"train:\n  init: {path}\n"))["train"]["init"] == path


@pytest.mark.parametrize("name", NAMES)
def test_dvc_changes_one_line_of_every_recipe_for_one_value(name: str, tmp_path: Path) -> None:
    text = recipe.compose(name, FOLDER)
    before, after = text.splitlines(), set_by_dvc(text, tmp_path, "train.steps=98765").splitlines()
    assert [new.split("#")[0].strip() for old, new in zip(before, after, strict=True) if old != new] == ["steps: 98765"]


@pytest.mark.parametrize("value", ["word", "null", "'two words'"])
def test_dvc_changes_one_line_for_each_of_all_settings(value: str, tmp_path: Path) -> None:
    settings = flatten(yaml.safe_load(DEFAULT))
    keys = [key for key, old in settings.items() if not isinstance(old, list) and (old is not None or value != "null")]
    changed = set_by_dvc(DEFAULT, tmp_path, *(f"{key}={value}" for key in keys))
    assert len(differences(changed)) == len(keys) > 40


def test_dvc_changes_only_the_lines_of_a_list(tmp_path: Path) -> None:
    emptied = set_by_dvc(DEFAULT, tmp_path, "network.attention=[]", "train.betas=[0.5,0.9]", "train.snapshots=[1]")
    lines = DEFAULT.replace("  attention:\n  - 4\n", "  attention: []\n").replace("snapshots: []", "snapshots:\n  - 1")
    assert emptied == lines.replace("  - 0.9\n  - 0.999\n", "  - 0.5\n  - 0.9\n")
    again = set_by_dvc(emptied, tmp_path, "network.attention=[4]", "train.betas=[0.9,0.999]", "train.snapshots=[]")
    assert again == DEFAULT


def set_by_dvc(text: str, folder: Path, *changes: str) -> str:
    """The text of params.yaml after the options -S of `dvc exp run`."""
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    apply_overrides(str(path), list(changes))
    return path.read_text(encoding="utf-8")


def test_values_become_null_and_null_becomes_values(composed: Composed) -> None:
    text = composed("evaluate:\n  extractor: inception\n  classifier: null\n  weights: w.pth\n")
    evaluate = params.check(yaml.safe_load(text)).evaluate
    assert (evaluate.classifier, evaluate.weights) == (None, "w.pth")
    assert comments(DEFAULT) == comments(text)


def test_a_section_replaces_null(composed: Composed) -> None:
    text = composed("reported:\n  source: Somebody, Table 1\n  metrics:\n    inception.fid: 3.17\n")
    reported = params.check(yaml.safe_load(text)).reported
    assert reported is not None
    assert (reported.source, reported.metrics) == ("Somebody, Table 1", {"inception.fid": 3.17})
    assert comments(DEFAULT) == comments(text)


@pytest.mark.parametrize("name", NAMES)
def test_reported_metrics_are_those_of_the_recipes_comment(name: str) -> None:
    reported = loaded(name).reported
    comment = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").split("\ndata:")[0]
    assert not [number for number in (reported.metrics.values() if reported else []) if f"{number:g}" not in comment]


@pytest.mark.parametrize(
    "change", ["data:\n  source: mnist\n", "diffusion:\n  process: interpolation\n", "network:\n  kind: basic\n"]
)
def test_another_kind_process_or_source_is_one_changed_line(change: str, composed: Composed) -> None:
    ((_, new),) = differences(composed(change))
    assert new.split(" #")[0].rstrip() == change.splitlines()[1]


def test_the_same_source_is_only_changed(composed: Composed) -> None:
    text = composed("data:\n  source: digits\n  seed: 4\n")
    assert [new.split(" #")[0].strip() for _, new in differences(text)] == ["seed: 4"]


def test_a_recipe_changes_the_default_and_no_other_recipe(composed: Composed, tmp_path: Path) -> None:
    (tmp_path / "y.yaml").write_text("sample:\n  count: 3\n")
    composed("train:\n  steps: 7\n")
    values = yaml.safe_load(recipe.compose("y", tmp_path))
    assert values["sample"]["count"] == 3
    assert values["train"] == yaml.safe_load(DEFAULT)["train"]


def test_a_recipe_of_comments_alone_is_the_default(composed: Composed) -> None:
    assert differences(composed("# Nothing changes\n")) == []


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_recipe_is_refused(text: str, composed: Composed, tmp_path: Path) -> None:
    """As a failed command leaves it where its output should have become a recipe."""
    with pytest.raises(UsageError, match=rf"^{tmp_path}/x\.yaml is empty: write it again, or remove it"):
        composed(text)


@pytest.mark.parametrize(
    ("text", "message"), [("train: [\n", "is not valid YAML: "), ("- 1\n", ": must be a mapping of sections")]
)
def test_a_recipe_that_is_not_a_mapping_is_refused(text: str, message: str, composed: Composed, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"^{tmp_path}/x\.yaml ?{message}"):
        composed(text)


def test_the_changes_of_a_recipe_are_checked(composed: Composed) -> None:
    with pytest.raises(params.ParamsError, match=r"recipe x is not usable:\n  train\.stepz = 3: there is no such key"):
        composed("train:\n  stepz: 3\n")
    with pytest.raises(params.ParamsError, match=r"recipe x is not usable:\n  training = .*: there is no such key"):
        composed("training:\n  steps: 3\n")


def test_an_unknown_recipe_is_named_beside_those_there_are(tmp_path: Path) -> None:
    for name in ("default", "tiny"):
        (tmp_path / f"{name}.yaml").write_text("# x\n")
    with pytest.raises(UsageError, match=f"^there is no recipe 'big' in {tmp_path}; there are default, tiny$"):
        recipe.compose("big", tmp_path)


def test_recipes_are_listed_with_the_first_line_of_their_comment(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("# Of the paper.\n# More\n")
    (tmp_path / "a.yaml").write_text("train:\n  steps: 3\n")
    assert recipe.names(tmp_path) == {"a": "", "b": "Of the paper."}


def test_files_that_a_system_hides_are_no_recipes(repository: Path) -> None:
    before = recipe.names(repository / "recipes")
    (repository / "recipes/._default.yaml").write_bytes(b"\xff\xfe")
    assert recipe.names(repository / "recipes") == before


def test_error_names_a_recipe_that_is_no_text(repository: Path) -> None:
    (repository / "recipes/mine.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"recipes/mine\.yaml is not a text file: "):
        recipe.names(repository / "recipes")
