"""The `ddpm` command: what it writes and says, and that its errors are one clear message with exit code 1."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from ddpm import files
from lab.commands import recipe
from tests.commands import fails, run


def test_recipes_are_listed_with_their_comments(repository: Path) -> None:
    (repository / "recipes" / "tiny.yaml").write_text("# Quick to try.\ntrain:\n  steps: 3\n")
    result = run("recipe")
    assert result.exit_code == 0
    width = max(map(len, recipe.names(repository / "recipes")))
    assert f"{'tiny':<{width}}  Quick to try." in result.stdout.splitlines()
    assert len(result.stdout.splitlines()) == len(list((repository / "recipes").glob("*.yaml")))


def test_a_recipe_is_written_over_the_default_whatever_was_there(repository: Path) -> None:
    (repository / "recipes" / "tiny.yaml").write_text("# Quick to try.\ntrain:\n  steps: 3\n")
    (repository / "params.yaml").write_text("of another recipe")
    result = run("recipe", "tiny")
    assert (result.exit_code, result.stdout.split(";")[0]) == (0, "params.yaml is now the recipe tiny")
    written = (repository / "params.yaml").read_text(encoding="utf-8")
    assert written == recipe.compose("tiny", repository / "recipes")
    assert yaml.safe_load(written)["train"]["steps"] == 3


def test_the_default_recipe_restores_the_committed_parameters(repository: Path) -> None:
    committed = (repository / "params.yaml").read_bytes()
    (repository / "params.yaml").unlink()
    assert run("recipe", "default").exit_code == 0
    assert (repository / "params.yaml").read_bytes() == committed


def test_a_recipe_is_found_from_a_folder_below(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_outside_of_a_repository_there_is_one_message(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fails(*command) == (
        f"ddpm: {tmp_path} is not inside an experiment repository: there is no dvc.yaml with recipes/ beside it"
    )


def test_publishing_needs_an_experiment(repository: Path) -> None:
    assert fails("publish").startswith("ddpm: there is no reports/metrics.json to publish: run `dvc repro`")
    assert not (repository / "mlflow.db").exists()


def test_images_are_generated_as_asked_for(model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    options = ["--count", 3, "--sampler", "ancestral", "--steps", 4, "--seed", 5, "--device", "cpu"]
    result = run("generate", "--model", model_file, "--out", out, *options)
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    file = files.read_tensors(out)
    assert file.tensors["images"].shape == (3, 1, 4, 4)
    sample = file.metadata["sample"]
    assert (sample["sampler"], sample["steps"], sample["seed"], sample["count"]) == ("ancestral", 4, 5, 3)


def test_images_are_drawn_with_the_variance_spacing_and_clipping_asked_for(model_file: Path, tmp_path: Path) -> None:
    seen = []
    for number, options in enumerate([[], ["--sigma", "small"], ["--spacing", "linspace"], ["--no-clip"]]):
        out = tmp_path / f"{number}.safetensors"
        options += ["--count", 2, "--sampler", "ancestral", "--steps", 4, "--device", "cpu"]
        assert run("generate", "--model", model_file, "--out", out, *options).exit_code == 0
        sample = files.read_metadata(out)["sample"]
        seen.append((sample["sigma"], sample["spacing"], sample["clip"]))
    usual = ("large", "trailing", True)
    assert seen == [usual, ("small", *usual[1:]), ("large", "linspace", True), (*usual[:2], False)]


def test_a_file_that_the_system_will_not_write_is_one_message(model_file: Path) -> None:
    said = fails("generate", "--model", model_file, "--out", "/proc/out.png", "--count", 1, "--steps", 1).splitlines()
    reasons = (
        "/proc/out.png: No such file or directory",
        "/proc/out.png: there is no permission to write to /proc",
    )
    assert said[-1] in {f"ddpm: {reason}" for reason in reasons}  # the second to who is not root
    assert "Traceback" not in " ".join(said)


def test_sixteen_images_by_ddim_are_usual(model_file: Path, tmp_path: Path) -> None:
    result = run("generate", "--model", model_file, "--out", tmp_path / "out.safetensors", "--device", "cpu")
    assert result.exit_code == 0
    sample = files.read_metadata(tmp_path / "out.safetensors")["sample"]
    assert (sample["sampler"], sample["steps"], sample["seed"], sample["count"]) == ("ddim", 10, 0, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "out.jpg"], "ddpm: --out out.jpg: must end in .png, .gif or .safetensors, or be a folder"),
        (["--sampler", "euler"], "ddpm: --sampler euler: must be 'ancestral', 'ddim' or 'dpm_solver'"),
        (["--steps", 11], "ddpm: --steps 11: must be at most diffusion.timesteps = 10"),
        (["--count", 0], "ddpm: --count 0: must be greater than or equal to 1"),
        (["--device", "cuda:99"], "ddpm: device 'cuda:99': this machine has "),
        (["--device", "gpu"], "ddpm: device 'gpu': must be auto, cpu, cuda or cuda:N"),
        (["--device", "meta"], "ddpm: device 'meta': must be auto, cpu, cuda or cuda:N"),
        (["--out", "model.safetensors/x.png"], "ddpm: model.safetensors/x.png: "),
        (["--seed", -1], "ddpm: --seed -1: must be greater than or equal to 0"),
        (["--steps", 0], "ddpm: --steps 0: must be greater than or equal to 1"),
        (["--label", "a"], "ddpm: --label and --guidance are for a conditional model, and this one knows no classes"),
        (["--model", "absent.safetensors"], "ddpm: absent.safetensors does not exist"),
    ],
)
def test_what_cannot_be_generated_is_one_message(
    options: list[object], message: str, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = fails("generate", "--model", model_file, "--out", "out.png", *options)
    assert said.startswith(message)
    assert "\n" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors"]


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.safetensors"
    files.write_tensors(path, {"images": torch.zeros(1)}, {"format": "ddpm-dataset-1"})
    said = fails("generate", "--model", path, "--out", tmp_path / "out.png")
    assert said == f"ddpm: {path} holds no model: its format is not ddpm-model-1"


def training(repository: Path, name: str, finished: bool) -> Path:
    """Resumable state of a training that stands at step 20."""
    folder = repository / ".ckpt" / name
    folder.mkdir(parents=True)
    (folder / "step-00000020.safetensors").write_bytes(bytes(2_000_000))
    if finished:
        (folder / "finished.json").write_text(json.dumps({"step": 20}))
    return folder


def test_clean_removes_what_is_finished_and_keeps_the_rest(repository: Path) -> None:
    finished, unfinished = training(repository, "aaaa", True), training(repository, "bbbb", False)
    result = run("clean")
    assert result.exit_code == 0
    first, second = result.stdout.splitlines()
    assert first.split() == ["aaaa", "finished", "at", "step", "20", "2.0", "MB", "0.0", "h", "ago", "removed"]
    assert second.split() == ["bbbb", "unfinished", "at", "step", "20", "2.0", "MB", "0.0", "h", "ago"]
    assert not finished.exists()
    assert unfinished.exists()


def test_clean_can_only_list(repository: Path) -> None:
    finished = training(repository, "aaaa", True)
    result = run("clean", "--list")
    assert result.exit_code == 0
    assert "finished" in result.stdout
    assert "removed" not in result.stdout
    assert finished.exists()


def test_clean_says_when_there_is_nothing(repository: Path) -> None:
    assert not (repository / ".ckpt").exists()
    assert run("clean").stdout == "there is no resumable state\n"


def test_without_a_command_there_is_help() -> None:
    assert all(command in run().output for command in ("recipe", "generate", "publish", "clean"))
