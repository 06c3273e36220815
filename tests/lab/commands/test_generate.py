"""Images of a model in the format of the output's suffix."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.errors import UsageError
from ddpm.network import modelfile
from ddpm.network.modelfile import Model
from ddpm.params import ConflictError
from ddpm.sampling import blocks, samples
from ddpm.sampling.options import Options, settings
from lab.commands import generate
from tests.lab.conftest import COURSE, MakeModel

TILE = 4 * 12 + 2  # images of 4x4 are enlarged to 48 pixels, with a gap of 2


@pytest.fixture
def model(model_file: Path) -> Model:
    return modelfile.load(model_file)


@pytest.fixture
def conditional(make_model: MakeModel) -> Model:
    return modelfile.load(make_model(conditional=True))


@pytest.mark.parametrize(
    ("diffusion", "samplers"),
    [
        (COURSE, ["ddim"]),
        ({"variance": "learned"}, ["ddim", "ancestral", "dpm_solver"]),
        ({"variance": "learned_range", "prediction": "v"}, ["ddim", "ancestral", "dpm_solver"]),
        ({"schedule": "jsd", "beta_start": None, "beta_end": None, "prediction": "x_0"}, ["ddim", "dpm_solver"]),
    ],
)
def test_every_model_is_sampled_without_options_but_the_sampler(
    diffusion: dict[str, Any], samplers: list[str], make_model: MakeModel
) -> None:
    model = modelfile.load(make_model(diffusion=diffusion))
    drawn = [blocks.draw(model, settings(model.description, Options(sampler, count=2))) for sampler in samplers]
    assert all(images.shape == (2, 1, 4, 4) and not images[0].equal(images[1]) for images in drawn)


@pytest.mark.parametrize("name", ["out.png", "out.gif", "out.safetensors", "out"])
def test_the_label_changes_every_output(name: str, conditional: Model, tmp_path: Path) -> None:
    written = []
    for label in ("cat", "cat", "dog"):
        out = tmp_path / str(len(written)) / name
        generate.generate(conditional, Options(count=2, steps=3, label=[label], guidance=3.0), out)
        files = [out] if out.is_file() else sorted(out.iterdir())
        written.append([path.read_bytes() for path in files])
    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize(("label", "labels"), [(None, [0, 1, 0]), (["dog"], [1, 1, 1]), (["1", "cat"], [1, 0, 1])])
def test_a_tensor_file_has_the_labels(
    conditional: Model, tmp_path: Path, label: list[str] | None, labels: list[int]
) -> None:
    options = Options(count=3, steps=3, label=label, guidance=3.0)
    generate.generate(conditional, options, tmp_path / "out.safetensors")
    written, _ = samples.read(tmp_path / "out.safetensors")
    assert written.labels is not None
    assert written.labels.tolist() == labels
    chosen = settings(conditional.description, options)
    assert written.images.equal(blocks.draw(conditional, chosen, torch.tensor(labels)))


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "dpm_solver"])
def test_a_tensor_file_has_the_images_and_their_settings(model: Model, tmp_path: Path, sampler: Any) -> None:
    options = Options(sampler, 5, 1, 3)
    generate.generate(model, options, tmp_path / "out.safetensors")
    written, _ = samples.read(tmp_path / "out.safetensors")
    chosen = settings(model.description, options)
    assert written.images.equal(blocks.draw(model, chosen))
    assert (written.images.shape, written.labels) == ((5, 1, 4, 4), None)
    assert (written.settings, written.model_digest) == (chosen.model_dump(), model.digest)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_images(model: Model, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        generate.generate(model, Options("ddim", 2, seed, 3), tmp_path / f"{name}.safetensors")
    a, b, c = ((tmp_path / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (9, 3, 3)])
def test_a_png_is_a_grid_about_as_wide_as_high(
    model: Model, tmp_path: Path, count: int, columns: int, rows: int
) -> None:
    options = Options(count=count, steps=2)
    generate.generate(model, options, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as grid:
        assert (grid.format, grid.size) == ("PNG", (columns * TILE + 2, rows * TILE + 2))
        first = np.asarray(grid)[2:TILE:12, 2:TILE:12]
    expected = blocks.draw(model, settings(model.description, options))[0, 0]
    np.testing.assert_array_equal(first, expected.numpy())


def test_a_folder_has_one_png_for_each_image_in_order(model: Model, tmp_path: Path) -> None:
    options = Options(count=11, steps=2)
    generate.generate(model, options, tmp_path / "out")
    paths = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in paths] == [f"{index:02}.png" for index in range(11)]
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    expected = blocks.draw(model, settings(model.description, options))[:, 0]
    np.testing.assert_array_equal(pixels, expected.numpy())


def test_a_folder_may_have_a_dot_in_its_name_but_no_images(model: Model, tmp_path: Path) -> None:
    options = Options(count=2, steps=2)
    out = tmp_path / "out.v2"
    out.mkdir()
    (out / "notes.txt").touch()
    generate.generate(model, options, out)
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", "notes.txt"]
    with pytest.raises(UsageError, match=r"already contains images; name another folder$"):
        generate.generate(model, options, out)


@pytest.mark.parametrize("name", ["out.png", "out"])
def test_a_file_where_a_folder_is_needed_is_named_before_any_work(
    model: Model, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "draw", lambda *_: pytest.fail("images were sampled"))
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=rf"/file/more/{name}.*: {tmp_path}/file is a file$"):
        generate.generate(model, Options(count=1, steps=2), tmp_path / "file/more" / name)


def test_a_gif_shows_the_reverse_process_and_holds_the_images_at_the_end(model: Model, tmp_path: Path) -> None:
    options = Options(count=2, steps=5)
    generate.generate(model, options, tmp_path / "out.gif")
    generate.generate(model, options, tmp_path / "out.png")
    with Image.open(tmp_path / "out.gif") as animation, Image.open(tmp_path / "out.png") as grid:
        assert (animation.n_frames, animation.size) == (6, grid.size)
        durations, frames = [], []
        for frame in range(animation.n_frames):
            animation.seek(frame)
            durations.append(animation.info["duration"])
            frames.append(np.asarray(animation.convert("L")))
        np.testing.assert_array_equal(frames[-1], np.asarray(grid))
        assert not np.array_equal(frames[0], frames[-1])
    assert durations == [80, 80, 80, 80, 80, 2000]


def test_an_animation_has_at_most_so_many_frames(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "FRAMES", 4)
    generate.generate(model, Options(count=1, steps=10), tmp_path / "out.gif")
    with Image.open(tmp_path / "out.gif") as animation:
        assert animation.n_frames == 4


def test_options_that_the_model_does_not_allow_are_refused_before_any_work(model: Model, tmp_path: Path) -> None:
    for options in (Options(steps=11), Options(label=["cat"])):
        with pytest.raises(ConflictError):
            generate.generate(model, options, tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_the_progress_of_an_animation_ends_at_its_total(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars: list[Any] = []
    usual = generate.stage.bar
    monkeypatch.setattr(generate.stage, "bar", lambda *given: bars.append(usual(*given)) or bars[-1])
    generate.generate(model, Options(count=1, steps=9, spacing="quad"), tmp_path / "out.gif")  # merges equal times
    assert bars[0].n == bars[0].total < 10


@pytest.mark.parametrize("name", ["out.jpg", "out.PNG", "out.v2"])
def test_another_suffix_is_refused_before_any_work(model: Model, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"--out {tmp_path}/{name}: must end in \.png, \.gif or \.safetensors"):
        generate.generate(model, Options(count=1, steps=2), tmp_path / name)
    assert not (tmp_path / name).exists()
