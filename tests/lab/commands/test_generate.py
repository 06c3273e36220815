"""Images from a model file, in the form that the output's name asks for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import files
from ddpm.errors import UsageError
from ddpm.network import modelfile
from ddpm.network.modelfile import Description, Model
from ddpm.params import Sample
from ddpm.sampling import blocks
from ddpm.sampling.options import Options, labels, settings
from lab.commands import generate
from tests.lab.conftest import COURSE, MakeModel

TILE = 4 * 12 + 2  # images of 4x4 are enlarged to 48 pixels, with a gap of 2


@pytest.fixture
def model(model_file: Path) -> Model:
    return modelfile.load(model_file)


@pytest.fixture
def conditional(make_model: MakeModel) -> Model:
    return modelfile.load(make_model(conditional=True))


def chosen_for(description: Description, timesteps: int, **options: Any) -> Sample:
    """The settings for a model of so many timesteps."""
    longer = description.diffusion.model_copy(update={"timesteps": timesteps})
    return settings(replace(description, diffusion=longer), Options(**options))


@pytest.mark.parametrize(
    ("sampler", "steps", "eta", "sigma"),
    [("ddim", 50, 1.0, None), ("dpm_solver", 20, None, None), ("ancestral", 1000, None, "large")],
)
def test_each_sampler_has_its_usual_settings(
    sampler: str, steps: int, eta: float | None, sigma: str | None, model: Model
) -> None:
    chosen = chosen_for(model.description, 1000, sampler=sampler, count=4, seed=3)
    assert (chosen.sampler, chosen.steps, chosen.eta, chosen.sigma) == (sampler, steps, eta, sigma)
    assert (chosen.count, chosen.seed, chosen.spacing, chosen.guidance) == (4, 3, "trailing", None)
    assert chosen_for(model.description, 10, sampler=sampler).steps == 10


def test_variance_spacing_and_clipping_are_those_asked_for(model: Model) -> None:
    chosen = settings(model.description, Options("ancestral", sigma="small", spacing="linspace", clip=False))
    assert (chosen.sigma, chosen.spacing, chosen.clip) == ("small", "linspace", False)
    assert settings(model.description, Options()).clip


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "dpm_solver"])
def test_steps_are_those_asked_for(sampler: str, model: Model) -> None:
    asked = [Options(sampler, steps=steps) for steps in (1, 7, 10)]
    assert [settings(model.description, options).steps for options in asked] == [1, 7, 10]


@pytest.mark.parametrize(
    ("diffusion", "samplers"),
    [
        (COURSE, ["ddim"]),
        ({"variance": "learned"}, ["ddim", "ancestral", "dpm_solver"]),
        ({"variance": "learned_range", "prediction": "v"}, ["ddim", "ancestral", "dpm_solver"]),
        ({"schedule": "jsd", "beta_start": None, "beta_end": None, "prediction": "x_0"}, ["ddim", "dpm_solver"]),
    ],
)
def test_every_model_draws_without_any_option_but_the_sampler(
    diffusion: dict[str, Any], samplers: list[str], make_model: MakeModel
) -> None:
    model = modelfile.load(make_model(diffusion=diffusion))
    drawn = [blocks.draw(model, settings(model.description, Options(sampler, count=2))) for sampler in samplers]
    assert all(images.shape == (2, 1, 4, 4) and not images[0].equal(images[1]) for images in drawn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "euler"}, "--sampler euler: must be 'ancestral', 'ddim' or 'dpm_solver'"),
        ({"steps": 11}, "--steps 11: must be at most diffusion.timesteps = 10"),
        ({"sampler": "ancestral", "steps": -1}, "--steps -1: must be greater than or equal to 1"),
        ({"steps": 0}, "--steps 0: must be greater than or equal to 1"),
        ({"count": 0}, "--count 0: must be greater than or equal to 1"),
        ({"seed": -1}, "--seed -1: must be greater than or equal to 0"),
        ({"seed": 2**63}, "--seed 9223372036854775808: must be less than 9223372036854775808"),
        ({"eta": 1.5}, "--eta 1.5: must be less than or equal to 1"),
        ({"sampler": "ancestral", "sigma": "huge"}, "--sigma huge: must be 'large' or 'small'"),
        ({"sigma": "small"}, "--sigma 'small': is for sampler ancestral, variance fixed only"),
        ({"spacing": "even"}, "--spacing even: must be 'leading', 'trailing', 'linspace' or 'quad'"),
        ({"sampler": "dpm_solver", "eta": 0.5}, "--eta 0.5: is for sampler ddim only"),
        ({"label": "cat"}, "--label and --guidance are for a conditional model, and this one knows no classes"),
        ({"guidance": 0.0}, "--label and --guidance are for a conditional model, and this one knows no classes"),
    ],
)
def test_settings_that_are_not_possible_are_named(options: dict[str, Any], message: str, model: Model) -> None:
    with pytest.raises(UsageError) as caught:
        settings(model.description, Options(**options))
    assert str(caught.value).startswith(message)


def test_what_a_model_cannot_be_sampled_with_is_named(make_model: MakeModel) -> None:
    course = modelfile.load(make_model(diffusion=COURSE)).description
    learned = modelfile.load(make_model(diffusion={"variance": "learned"})).description
    with pytest.raises(UsageError, match=r"^--eta 0\.5: must be 0 for the interpolation process$"):
        settings(course, Options(eta=0.5))
    with pytest.raises(UsageError, match=r"^--steps 5: a learned variance is that of single steps"):
        settings(learned, Options("ancestral", steps=5))


def test_a_label_is_a_class_by_name_or_by_its_place(conditional: Model) -> None:
    for label, expected in (("cat", 0), ("dog", 1), ("0", 0), ("1", 1)):
        chosen = settings(conditional.description, Options(count=3, label=label))
        assert chosen.guidance == 2.0
        asked = labels(conditional, chosen, label)
        assert asked is not None
        assert asked.tolist() == [expected] * 3


def test_a_name_that_is_a_number_is_a_name_before_it_is_a_place(conditional: Model) -> None:
    renamed = replace(conditional, description=replace(conditional.description, classes=["1", "0"]))
    asked = labels(renamed, settings(renamed.description, Options(count=2, label="1")), "1")
    assert asked is not None
    assert asked.tolist() == [0, 0]


def test_guidance_alone_asks_for_all_classes_in_turn_and_neither_for_none(conditional: Model) -> None:
    in_turn = settings(conditional.description, Options(count=5, guidance=0.5))
    asked = labels(conditional, in_turn, None)
    assert asked is not None
    assert (in_turn.guidance, asked.tolist()) == (0.5, [0, 1, 0, 1, 0])
    assert labels(conditional, settings(conditional.description, Options(count=5)), None) is None


@pytest.mark.parametrize("label", ["cow", "2", "-1"])
def test_an_unknown_label_is_told_the_classes(label: str, conditional: Model) -> None:
    with pytest.raises(UsageError, match=f"^--label {label}: the model's classes are 0 cat, 1 dog$"):
        labels(conditional, settings(conditional.description, Options(label=label)), label)


@pytest.mark.parametrize("name", ["out.png", "out.gif", "out.safetensors", "out"])
def test_every_form_of_output_shows_the_class_asked_for(name: str, conditional: Model, tmp_path: Path) -> None:
    chosen = settings(conditional.description, Options(count=2, steps=3, guidance=3.0))
    written = []
    for label in (0, 0, 1):
        out = tmp_path / str(len(written)) / name
        generate.generate(conditional, chosen, torch.tensor([label, label]), out)
        files = [out] if out.is_file() else sorted(out.iterdir())
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1] != written[2]


def test_a_tensor_says_which_classes_were_asked_for(conditional: Model, tmp_path: Path) -> None:
    chosen = settings(conditional.description, Options(count=3, steps=3, guidance=3.0))
    asked = torch.tensor([1, 0, 1])
    generate.generate(conditional, chosen, asked, tmp_path / "out.safetensors")
    tensors = files.read_tensors(tmp_path / "out.safetensors").tensors
    assert tensors["labels"].equal(asked)
    assert tensors["images"].equal(blocks.draw(conditional, chosen, asked))


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "dpm_solver"])
def test_a_tensor_has_the_images_and_how_they_were_drawn(model: Model, tmp_path: Path, sampler: str) -> None:
    chosen = settings(model.description, Options(sampler, 5, 1, 3))
    generate.generate(model, chosen, None, tmp_path / "out.safetensors")
    file = files.read_tensors(tmp_path / "out.safetensors")
    torch.testing.assert_close(file.tensors["images"], blocks.draw(model, chosen), rtol=0, atol=0)
    assert file.tensors["images"].shape == (5, 1, 4, 4)
    assert (file.metadata["sample"], file.metadata["model_digest"]) == (chosen.model_dump(), model.digest)


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_images(model: Model, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        generate.generate(
            model, settings(model.description, Options("ddim", 2, seed, 3)), None, tmp_path / f"{name}.safetensors"
        )
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (9, 3, 3)])
def test_a_png_is_a_grid_about_as_wide_as_high(
    model: Model, tmp_path: Path, count: int, columns: int, rows: int
) -> None:
    chosen = settings(model.description, Options(count=count, steps=2))
    generate.generate(model, chosen, None, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as grid:
        assert (grid.format, grid.size) == ("PNG", (columns * TILE + 2, rows * TILE + 2))
        first = np.asarray(grid)[2:TILE:12, 2:TILE:12]
    np.testing.assert_array_equal(first, blocks.draw(model, chosen)[0, 0].numpy())


def test_a_folder_has_one_png_for_each_image_in_order(model: Model, tmp_path: Path) -> None:
    chosen = settings(model.description, Options(count=11, steps=2))
    generate.generate(model, chosen, None, tmp_path / "out")
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == [f"{place:02}.png" for place in range(11)]
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.testing.assert_array_equal(pixels, blocks.draw(model, chosen)[:, 0].numpy())


def test_a_folder_may_have_a_dot_in_its_name_but_no_images_of_another_time(model: Model, tmp_path: Path) -> None:
    chosen = settings(model.description, Options(count=2, steps=2))
    out = tmp_path / "out.v2"
    out.mkdir()
    (out / "notes.txt").touch()
    generate.generate(model, chosen, None, out)
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", "notes.txt"]
    with pytest.raises(UsageError, match=r"has images already, and these would mix with them; name another folder$"):
        generate.generate(model, chosen, None, out)


@pytest.mark.parametrize("name", ["out.png", "out"])
def test_a_file_where_a_folder_is_needed_is_named_before_any_work(
    model: Model, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "draw", lambda *_: pytest.fail("it draws"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=rf"/file/more/{name}.*: {tmp_path}/file is a file$"):
        generate.generate(
            model, settings(model.description, Options(count=1, steps=2)), None, tmp_path / "file/more" / name
        )


def test_a_gif_shows_the_denoising_and_holds_the_images_at_the_end(model: Model, tmp_path: Path) -> None:
    chosen = settings(model.description, Options(count=2, steps=5))
    generate.generate(model, chosen, None, tmp_path / "out.gif")
    generate.generate(model, chosen, None, tmp_path / "out.png")
    with Image.open(tmp_path / "out.gif") as animation, Image.open(tmp_path / "out.png") as grid:
        assert (animation.n_frames, animation.size) == (6, grid.size)
        durations, frames = [], []
        for place in range(animation.n_frames):
            animation.seek(place)
            durations.append(animation.info["duration"])
            frames.append(np.asarray(animation.convert("L")))
        np.testing.assert_array_equal(frames[-1], np.asarray(grid))
        assert not np.array_equal(frames[0], frames[-1])
    assert durations == [80, 80, 80, 80, 80, 2000]


def test_an_animation_has_no_more_frames_than_one_looks_at(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate, "FRAMES", 4)
    generate.generate(model, settings(model.description, Options(count=1, steps=10)), None, tmp_path / "out.gif")
    with Image.open(tmp_path / "out.gif") as animation:
        assert animation.n_frames == 4


@pytest.mark.parametrize("name", ["out.jpg", "out.PNG", "out.v2"])
def test_another_suffix_is_refused_before_any_work(model: Model, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"--out {tmp_path}/{name}: must end in \.png, \.gif or \.safetensors"):
        generate.generate(model, settings(model.description, Options(count=1, steps=2)), None, tmp_path / name)
    assert not (tmp_path / name).exists()
