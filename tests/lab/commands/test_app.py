"""The `ddpm` command: its output, its options, and its errors, which are one message and exit code 1."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from ddpm import files
from ddpm.network import modelfile
from ddpm.sampling import blocks, samples
from ddpm.sampling.options import Options, settings
from lab.commands import recipe
from tests.commands import fails, run
from tests.lab.conftest import MakeModel


def test_recipes_are_listed_with_their_comments(repository: Path) -> None:
    (repository / "recipes" / "tiny.yaml").write_text("# Quick to try.\ntrain:\n  steps: 3\n")
    result = run("recipe")
    assert result.exit_code == 0
    width = max(map(len, recipe.names(repository / "recipes")))
    assert f"{'tiny':<{width}}  Quick to try." in result.stdout.splitlines()
    assert len(result.stdout.splitlines()) == len(list((repository / "recipes").glob("*.yaml")))


def test_a_recipe_replaces_params_yaml(repository: Path) -> None:
    (repository / "recipes" / "tiny.yaml").write_text("# Quick to try.\ntrain:\n  steps: 3\n")
    result = run("recipe", "tiny")
    assert (result.exit_code, result.stdout.split(";")[0]) == (0, "params.yaml is now the recipe tiny")
    written = (repository / "params.yaml").read_text(encoding="utf-8")
    assert written == recipe.compose("tiny", repository / "recipes")
    assert yaml.safe_load(written)["train"]["steps"] == 3


def git(*arguments: str) -> None:
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def change(path: Path, old: str, new: str) -> str:
    """Replace a part of a file, and return its new text."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def test_a_recipe_overwrites_uncommitted_settings_only_with_force(repository: Path) -> None:
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "all")
    changed = change(repository / "params.yaml", "  steps: 2500 ", "  steps: 2501 ")
    assert fails("recipe", "mnist") == (
        "ddpm: params.yaml has changes that are not committed, and no recipe has them:\n"
        "  train.steps: 2501 (committed: 2500)\n"
        "commit them (`git commit params.yaml`), save them in recipes/NAME.yaml, "
        "or overwrite them with --force"
    )
    assert (repository / "params.yaml").read_text(encoding="utf-8") == changed
    assert run("recipe", "mnist", "--force").exit_code == 0
    assert (repository / "params.yaml").read_text(encoding="utf-8") == recipe.compose("mnist", repository / "recipes")


def test_settings_of_a_commit_of_an_experiment_and_of_a_recipe_are_overwritten(repository: Path) -> None:
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-qm", "all")
    for ref in ("refs/heads/main", "refs/exps/ab/cd/slow"):  # DVC keeps an experiment as a commit under refs/exps
        change(repository / "params.yaml", "  steps: 2500 ", f"  steps: {len(ref)} ")
        git("commit", "-qam", "other settings")
        git("update-ref", ref, "HEAD")
        (repository / "recipes" / "empty.yaml").touch()
        for name in ("mnist", "default"):
            assert run("recipe", name).exit_code == 0


def test_the_settings_to_be_lost_are_those_that_differ_from_the_nearest_recipe(repository: Path) -> None:
    assert run("recipe", "mnist").exit_code == 0
    change(repository / "params.yaml", "  steps: 80000 ", "  steps: 70000 ")
    assert fails("recipe", "default").splitlines()[1:-1] == ["  train.steps: 70000 (recipe mnist: 80000)"]


def test_without_git_the_settings_to_be_lost_are_compared_with_the_recipes(repository: Path) -> None:
    change(repository / "params.yaml", "  learning_rate: 1.0e-3 ", "  learning_rate: abc ")
    change(repository / "params.yaml", "  image_size: ", "  image_sise: ")
    assert fails("recipe", "mnist").splitlines()[1:-1] == [
        "  data.image_sise: null (recipe default: missing)",
        '  train.learning_rate: "abc" (recipe default: 0.001)',
        "  data.image_size: missing (recipe default: null)",
    ]


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("of another recipe", "  they cannot be listed, because it is not a valid params.yaml: "),
        ("train: [", "  they cannot be listed, because it is not a valid params.yaml: while parsing"),
        (None, "  comments or layout"),
    ],
)
def test_other_contents_of_params_yaml_are_kept(text: str | None, lost: str, repository: Path) -> None:
    path = repository / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "# mine\n" if text is None else text, encoding="utf-8")
    before = path.read_bytes()
    assert fails("recipe", "mnist").splitlines()[1].startswith(lost)
    assert path.read_bytes() == before


def test_the_default_recipe_restores_the_committed_parameters(repository: Path) -> None:
    committed = (repository / "params.yaml").read_bytes()
    (repository / "params.yaml").unlink()
    assert run("recipe", "default").exit_code == 0
    assert (repository / "params.yaml").read_bytes() == committed


def test_a_command_runs_from_a_folder_in_the_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "params.yaml").unlink()
    (repository / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(repository / "a" / "b")
    assert run("recipe", "default").exit_code == 0
    assert (repository / "params.yaml").is_file()


def test_an_unknown_recipe_changes_nothing(repository: Path) -> None:
    before = (repository / "params.yaml").read_bytes()
    assert fails("recipe", "big").startswith("ddpm: there is no recipe 'big' in recipes; there are ")
    assert (repository / "params.yaml").read_bytes() == before


def test_an_unusable_recipe_changes_nothing(repository: Path) -> None:
    before = (repository / "params.yaml").read_bytes()
    (repository / "recipes" / "bad.yaml").write_text("train:\n  steps: many\n")
    expected = "ddpm: recipe bad is not usable:\n  train.steps = 'many': must be a valid integer"
    assert fails("recipe", "bad") == expected
    assert (repository / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("command", [["recipe"], ["recipe", "default"], ["clean"], ["publish"]])
def test_outside_of_a_repository_a_command_fails_with_one_message(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fails(*command) == (
        f"ddpm: {tmp_path} is not in an experiment repository: no parent folder has dvc.yaml and recipes/"
    )


def test_publishing_needs_an_experiment(repository: Path) -> None:
    assert fails("publish").startswith("ddpm: there is no reports/metrics.json to publish: run `dvc repro`")
    assert not (repository / "mlflow.db").exists()


def test_generate_uses_its_options(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    options = ["--count", 3, "--sampler", "ancestral", "--sigma", "small", "--steps", 4, "--spacing", "linspace"]
    options += ["--no-clip", "--seed", 5, "--device", "cpu", "--precision", "bf16"]
    result = run("generate", "--model", model_file, "--out", out, *options)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    written, _ = samples.read(out)
    assert written.images.shape == (3, 1, 4, 4)
    description = modelfile.load(model_file).description
    expected = Options("ancestral", 3, 5, 4, sigma="small", spacing="linspace", clip=False, precision="bf16")
    assert written.settings == settings(description, expected).model_dump()
    model = modelfile.load(model_file, precision="bf16")
    assert written.images.equal(blocks.draw(model, settings(description, expected)))


def test_generate_without_options_has_the_defaults_of_options(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    assert run("generate", "--model", model_file, "--out", out, "--device", "cpu").exit_code == 0
    description = modelfile.load(model_file).description
    assert samples.read(out)[0].settings == settings(description, Options()).model_dump()


def test_a_file_that_cannot_be_written_is_one_message(model_file: Path) -> None:
    lines = fails("generate", "--model", model_file, "--out", "/proc/out.png", "--count", 1, "--steps", 1).splitlines()
    reasons = (
        "/proc/out.png: No such file or directory",
        "/proc/out.png: there is no permission to write to /proc",
    )
    assert lines[-1] in {f"ddpm: {reason}" for reason in reasons}  # the first as root
    assert "Traceback" not in " ".join(lines)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "out.jpg"], "ddpm: --out out.jpg: must end in .png, .gif or .safetensors, or be a folder"),
        (["--sampler", "ancestral", "--eta", 0.5], "ddpm: --eta 0.5: "),
        (["--sigma", "small"], "ddpm: --sigma small: "),
        (["--steps", 11], "ddpm: --steps 11: must be at most diffusion.timesteps = 10"),
        (["--count", 0], "ddpm: --count 0: must be at least 1"),
        (["--device", "cuda:99"], "ddpm: device 'cuda:99': this machine has "),
        (["--device", "gpu"], "ddpm: device 'gpu': must be auto, cpu, cuda, cuda:N or mps"),
        (["--device", "mps"], "ddpm: device 'mps': this machine has no MPS; use cpu or auto"),
        (["--device", "meta"], "ddpm: device 'meta': must be auto, cpu, cuda, cuda:N or mps"),
        (["--out", "model.safetensors/x.png"], "ddpm: model.safetensors/x.png: "),
        (["--seed", -1], "ddpm: --seed -1: must be at least 0"),
        (["--steps", 0], "ddpm: --steps 0: must be at least 1"),
        (
            ["--label", "a"],
            "ddpm: --label a: applies only to conditional models; this model has no classes, so omit it",
        ),
        (["--guidance", 1], "ddpm: --guidance 1.0: "),
        (["--model", "absent.safetensors"], "ddpm: absent.safetensors does not exist"),
    ],
)
def test_an_error_of_generate_is_one_message_and_leaves_no_file(
    options: list[object], message: str, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = fails("generate", "--model", model_file, "--out", "out.png", *options)
    assert found.startswith(message)
    assert "\n" not in found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_several_errors_of_options_are_one_line_each(model_file: Path, tmp_path: Path) -> None:
    assert fails("generate", "--model", model_file, "--out", tmp_path / "out.png", "--seed", -1, "--count", 0) == (
        "ddpm: --seed -1: must be at least 0\n  --count 0: must be at least 1"
    )


@pytest.mark.parametrize(("option", "value"), [("--sampler", "euler"), ("--spacing", "even"), ("--sigma", "huge")])
def test_a_choice_that_does_not_exist_is_refused_with_the_choices(option: str, value: str, model_file: Path) -> None:
    result = run("generate", "--model", model_file, "--out", "out.png", option, value)
    message = " ".join(result.stderr.replace("│", " ").split())
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in message
    assert f"'{value}' is not one of '" in message


def test_an_unknown_label_is_refused_with_the_classes(make_model: MakeModel, tmp_path: Path) -> None:
    options = ["--model", make_model(conditional=True), "--out", tmp_path / "out.png", "--label", "cow"]
    expected = "ddpm: --label cow: must be the name or index of a class: 0 cat, 1 dog"
    assert fails("generate", *options) == expected


def test_error_names_a_file_that_is_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "data.safetensors"
    files.write_tensors(path, {"images": torch.zeros(1)}, {"format": "ddpm-dataset-1"})
    found = fails("generate", "--model", path, "--out", tmp_path / "out.png")
    assert found == f"ddpm: {path} has the format ddpm-dataset-1 (packed images): expected ddpm-model-1 (a model)"


HELP = "import sys, runpy; sys.argv[1:] = {arguments}; runpy.run_module('lab.commands.app', run_name='__main__')"
LOADED = "import sys, atexit; atexit.register(lambda: print({names} & set(sys.modules), file=sys.stderr)); "


@pytest.mark.parametrize("command", [[], ["generate"]])
def test_help_imports_no_heavy_package(command: list[str]) -> None:
    script = LOADED.format(names={"torch", "mlflow", "pandas", "numpy"}) + HELP.format(arguments=[*command, "--help"])
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "set()\n")


def test_without_a_command_there_is_help() -> None:
    assert all(command in run().output for command in ("recipe", "generate", "publish", "clean"))
