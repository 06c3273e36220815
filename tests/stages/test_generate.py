"""Images from a model file, in the form that the output's name asks for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm import tensorfile
from ddpm.errors import UsageError
from ddpm.network import modelfile
from ddpm.network.modelfile import Model
from ddpm.sampling import blocks
from stages import generate

TILE = 4 * 12 + 2  # images of 4x4 are enlarged to 48 pixels, with a gap of 2


@pytest.fixture
def model(model_file: Path) -> Model:
    return modelfile.load(model_file)


def test_ddim_takes_fifty_steps_or_as_many_as_there_are() -> None:
    chosen = generate.settings("ddim", None, 4, 3, 1000)
    assert (chosen.sampler, chosen.steps, chosen.eta, chosen.sigma) == ("ddim", 50, 1.0, None)
    assert (chosen.count, chosen.seed) == (4, 3)
    assert generate.settings("ddim", None, 4, 3, 10).steps == 10


def test_ancestral_sampling_takes_the_whole_chain() -> None:
    chosen = generate.settings("ancestral", None, 4, 0, 1000)
    assert (chosen.sampler, chosen.steps, chosen.eta, chosen.sigma) == ("ancestral", 1000, None, "large")


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_steps_are_those_asked_for(sampler: str) -> None:
    assert [generate.settings(sampler, steps, 1, 0, 10).steps for steps in (1, 7, 10)] == [1, 7, 10]


@pytest.mark.parametrize(
    ("sampler", "steps", "count", "seed", "message"),
    [
        ("euler", None, 1, 0, "--sampler euler: must be ddim or ancestral"),
        ("ddim", 11, 1, 0, "--steps 11: must be between 1 and the model's 10 timesteps"),
        ("ancestral", -1, 1, 0, "--steps -1: must be between 1 and the model's 10 timesteps"),
        ("ddim", 0, 1, 0, "--steps 0: must be between 1 and the model's 10 timesteps"),
        ("ddim", None, 0, 0, "--count 0: must be at least 1"),
        ("ddim", None, 1, -1, "--seed -1: must be between 0 and 2**63 - 1"),
        ("ddim", None, 1, 2**63, "--seed 9223372036854775808: must be between 0 and 2**63 - 1"),
    ],
)
def test_settings_that_are_not_possible_are_named(
    sampler: str, steps: int | None, count: int, seed: int, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        generate.settings(sampler, steps, count, seed, 10)
    assert str(caught.value) == message


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_a_tensor_has_the_images_and_how_they_were_drawn(model: Model, tmp_path: Path, sampler: str) -> None:
    chosen = generate.settings(sampler, 3, 5, 1, 10)
    generate.generate(model, chosen, tmp_path / "out.safetensors")
    file = tensorfile.read(tmp_path / "out.safetensors")
    torch.testing.assert_close(file.tensors["images"], blocks.draw(model, chosen), rtol=0, atol=0)
    assert file.tensors["images"].shape == (5, 1, 4, 4)
    assert (file.metadata["sample"], file.metadata["model_digest"]) == (chosen.model_dump(), model.digest)


def test_the_same_seed_gives_the_same_bytes_and_another_one_other_images(model: Model, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        generate.generate(model, generate.settings("ddim", 3, 2, seed, 10), tmp_path / f"{name}.safetensors")
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (9, 3, 3)])
def test_a_png_is_a_grid_about_as_wide_as_high(
    model: Model, tmp_path: Path, count: int, columns: int, rows: int
) -> None:
    chosen = generate.settings("ddim", 2, count, 0, 10)
    generate.generate(model, chosen, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as grid:
        assert (grid.format, grid.size) == ("PNG", (columns * TILE + 2, rows * TILE + 2))
        first = np.asarray(grid)[2:TILE:12, 2:TILE:12]
    np.testing.assert_array_equal(first, blocks.draw(model, chosen)[0, 0].numpy())


def test_a_folder_has_one_png_for_each_image_in_order(model: Model, tmp_path: Path) -> None:
    chosen = generate.settings("ddim", 2, 11, 0, 10)
    generate.generate(model, chosen, tmp_path / "out")
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == [f"{place:02}.png" for place in range(11)]
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.testing.assert_array_equal(pixels, blocks.draw(model, chosen)[:, 0].numpy())


def test_a_gif_shows_the_denoising_and_holds_the_images_at_the_end(model: Model, tmp_path: Path) -> None:
    chosen = generate.settings("ddim", 5, 2, 0, 10)
    generate.generate(model, chosen, tmp_path / "out.gif")
    generate.generate(model, chosen, tmp_path / "out.png")
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
    generate.generate(model, generate.settings("ddim", 10, 1, 0, 10), tmp_path / "out.gif")
    with Image.open(tmp_path / "out.gif") as animation:
        assert animation.n_frames == 4


@pytest.mark.parametrize("name", ["out.jpg", "out.PNG", "out.v2"])
def test_another_suffix_is_refused_before_any_work(model: Model, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"--out {tmp_path}/{name}: must end in \.png, \.gif or \.safetensors"):
        generate.generate(model, generate.settings("ddim", 2, 1, 0, 10), tmp_path / name)
    assert not (tmp_path / name).exists()
