"""Pictures of sampling: their contents, and their size for small and for large images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ddpm import figures, images
from ddpm.diffusion import process
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network.modelfile import Description, Model
from ddpm.params import Gaussian, Interpolation, Sample, UNetNetwork
from ddpm.sampling import blocks, pictures

MakeModel = Callable[..., Model]


@pytest.fixture
def make_model(diffusion_settings: Gaussian, network_settings: UNetNetwork) -> MakeModel:
    """A function that makes a model of images (3, size, size) whose network is `factor` times its input."""

    def make(size: int = 8, diffusion: Gaussian | Interpolation = diffusion_settings, factor: float = 0.9) -> Model:
        description = Description(diffusion, network_settings, (3, size, size), [])
        denoiser = Denoiser(lambda x_t, _index: factor * x_t, process.from_settings(diffusion), diffusion)
        return Model(description, nn.Identity(), denoiser, "")

    return make


def random_images(count: int, size: int) -> Tensor:
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


def test_grid_of_small_images_is_10_by_10_with_every_pixel_enlarged(tmp_path: Path) -> None:
    shown = random_images(110, 8)
    pictures.save_grid(shown, tmp_path / "grid.png")
    grid = np.asarray(read(tmp_path / "grid.png"))
    assert grid.shape == (502, 502, 3)  # 10 * (6 * 8 + 2) + 2
    np.testing.assert_array_equal(grid, np.asarray(figures.grid(shown[:100], columns=10)))


@pytest.mark.parametrize("size", [8, 28, 48, 64, 256, 512])
def test_grid_is_within_its_pixel_budget(size: int, tmp_path: Path) -> None:
    shown = random_images(100, size)
    pictures.save_grid(shown, tmp_path / "grid.png")
    columns, picture = pictures.sheet_columns(shown), read(tmp_path / "grid.png")
    assert columns == (10 if size <= 48 else 6)
    side = (picture.width - 2) // columns - 2  # of one image
    assert picture.size == ((side + 2) * columns + 2,) * 2
    scale = max(side // size, 1)
    assert (columns * side / scale) ** 2 <= 160_000
    assert side >= min(size, 24)


def strips(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], list[tuple[str, Tensor]]]]:
    """The columns and rows of the strips that are drawn from now on."""
    drawn: list[tuple[list[str], list[tuple[str, Tensor]]]] = []
    monkeypatch.setattr(figures, "strip", lambda _path, _title, columns, rows: drawn.append((columns, rows)))
    return drawn


def test_denoising_shows_x_t_and_the_predicted_x_0_of_four_samples_at_ten_times(
    make_model: MakeModel, sample_settings: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, settings = make_model(), sample_settings.model_copy(update={"steps": 20})
    drawn = strips(monkeypatch)
    pictures.save_denoising(model, settings, None, Path())
    ((columns, rows),) = drawn
    states = blocks.milestones(model, settings, None, 4, 10)
    assert columns == [f"$t={state.t}$" for state in states]
    assert (columns[0], columns[-1], len(columns)) == ("$t=20$", "$t=0$", 10)
    assert [label for label, _ in rows] == ["$x_t$", r"$\hat{x}_0$"] * 4
    for index in range(4):
        for row, values in zip(rows[2 * index :], ("x_t", "x_0"), strict=False):
            expected = torch.stack([getattr(state, values)[index] for state in states])
            assert row[1].equal(images.to_uint8(expected, (-1.0, 1.0)))


def test_denoising_of_fewer_samples_shows_those(
    make_model: MakeModel, sample_settings: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = strips(monkeypatch)
    pictures.save_denoising(make_model(), sample_settings.model_copy(update={"count": 3}), None, Path())
    assert len(drawn[0][1]) == 6


def test_noising_shows_x_t_and_the_predicted_x_0_from_t_1_to_the_last(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, real = strips(monkeypatch), random_images(5, 8)
    pictures.save_noising(make_model(factor=0.0), real, 3, Path())
    ((columns, rows),) = drawn
    assert (columns[0], columns[-1], len(columns)) == ("$t=1$", "$t=20$", 10)
    assert len(rows) == 8
    noisy = rows[2][1].float()
    distances = (noisy - real[1].float()).abs().mean((1, 2, 3))
    assert distances[0] < 15 < 50 < distances[-1]
    pictures.save_noising(make_model(factor=0.0), real, 4, Path())
    assert not drawn[1][1][2][1].equal(rows[2][1])  # another seed


@pytest.mark.parametrize("size", [8, 256])
def test_strips_have_the_same_size_for_small_and_large_images(
    size: int, make_model: MakeModel, sample_settings: Sample, tmp_path: Path
) -> None:
    model = make_model(size)
    pictures.save_denoising(model, sample_settings.model_copy(update={"steps": 20}), None, tmp_path / "denoising.png")
    pictures.save_noising(model, random_images(4, size), 0, tmp_path / "noising.png")
    for name in ("denoising", "noising"):
        path = tmp_path / f"{name}.png"
        assert read(path).width == 737  # 6.7 inches
        assert path.stat().st_size < 600_000


@pytest.mark.parametrize(("size", "count", "shown"), [(8, 9, 48), (28, 9, 56), (64, 1, 64), (256, 1, 86)])
def test_trajectory_of_larger_images_has_fewer_samples_then_smaller_ones(
    size: int, count: int, shown: int, make_model: MakeModel, sample_settings: Sample, tmp_path: Path
) -> None:
    settings = sample_settings.model_copy(update={"steps": 20})
    pictures.save_trajectory(make_model(size), settings, None, tmp_path / "trajectory.gif")
    side = (shown + 2) * count**0.5 + 2
    with Image.open(tmp_path / "trajectory.gif") as animation:
        assert (animation.size, animation.n_frames) == ((side, side), 21)
    assert min(size, shown) ** 2 * count * 21 <= 230_000


def test_animation_ends_with_the_samples_and_calls_progress_after_each_state(
    make_model: MakeModel, sample_settings: Sample, tmp_path: Path
) -> None:
    counts: list[int] = []
    model = make_model()
    pictures.animate(model, sample_settings, None, 4, 3, tmp_path / "a.gif", counts.append)
    assert counts == [1] * 6
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 3
        animation.seek(2)
        last = np.asarray(animation.convert("RGB")).astype(int)
    samples = blocks.draw(model, sample_settings.model_copy(update={"count": 4}))
    assert abs(last - np.asarray(figures.grid(samples, columns=2)).astype(int)).mean() < 8  # a GIF has 256 colours


def test_preview_shows_16_samples_and_is_the_same_for_the_same_model(make_model: MakeModel) -> None:
    first, same, other = (pictures.preview(make_model(factor=factor)) for factor in (0.9, 0.9, 0.5))
    assert first.size == (8 * 50 + 2, 2 * 50 + 2)
    assert first.tobytes() == same.tobytes() != other.tobytes()


def test_preview_of_the_interpolation_process(make_model: MakeModel) -> None:
    course = Interpolation(
        process="interpolation", timesteps=20, prediction="x_0", variance="fixed", value_range=[0.0, 1.0]
    )
    assert pictures.preview(make_model(diffusion=course)).size == (402, 102)
