"""The picture of an interpolation, and its two images."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner, Result

from ddpm import figures, files
from ddpm.errors import UsageError
from ddpm.network import modelfile
from ddpm.network.modelfile import Model
from ddpm.params import Sample
from ddpm.sampling.interpolation import interpolate
from ddpm.sampling.options import Options, settings
from lab.commands.app import app
from lab.commands.interpolate import picture, sources
from tests.lab.conftest import COURSE, MakeModel

PAIR = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4) * 7


@pytest.fixture
def model(model_file: Path) -> Model:
    return modelfile.load(model_file)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """Five images of one grey level each."""
    images = torch.tensor([0, 50, 100, 150, 200], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    files.write_tensors(tmp_path / "images.safetensors", {"images": images}, {})
    return tmp_path / "images.safetensors"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["interpolate", *map(str, arguments)])


def test_a_pair_is_read_from_a_tensor_file_in_the_given_order(model: Model, packed: Path) -> None:
    pair = sources(model.description, [packed], (3, 1))
    assert pair.shape == (2, 1, 4, 4)
    assert pair[:, 0, 0, 0].tolist() == [150, 50]


def test_image_files_are_cropped_and_converted_to_grey(model: Model, tmp_path: Path) -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 90  # the square in the middle
    Image.fromarray(wide).save(tmp_path / "a.png")
    Image.fromarray(PAIR[1, 0].numpy()).save(tmp_path / "b.png")
    first, second = sources(model.description, [tmp_path / "a.png", tmp_path / "b.png"], None)
    assert first.equal(torch.full((1, 4, 4), 90, dtype=torch.uint8))
    assert second.equal(PAIR[1])


@pytest.mark.parametrize(
    ("names", "pair", "message"),
    [
        (["images.safetensors"], (0, 5), r"--pair 0 5: the indices of .*images\.safetensors are 0 to 4"),
        (["images.safetensors"], (-1, 2), r"--pair -1 2: the indices of .*images\.safetensors are 0 to 4"),
        (["images.safetensors"], None, "--images: must be two image files, each with a separate --images, or one "),
        (["a.png", "b.png"], (0, 1), "--images: must be two image files"),
        (["a.png"], None, "--images: must be two image files"),
        (["a.png", "b.png", "c.png"], None, "--images: must be two image files"),
        (["nowhere.png", "a.png"], None, r"nowhere\.png: .*No such file"),
        (["model.safetensors"], (0, 1), r"model\.safetensors: contains no images of the model's shape \(1, 4, 4\)"),
        (["larger.safetensors"], (0, 1), r"larger\.safetensors: contains no images of the model's shape \(1, 4, 4\)"),
    ],
)
@pytest.mark.usefixtures("packed")
def test_sources_that_are_not_a_pair_of_images_are_refused(
    names: list[str], pair: tuple[int, int] | None, message: str, model: Model, tmp_path: Path
) -> None:
    files.write_tensors(tmp_path / "larger.safetensors", {"images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}, {})
    with pytest.raises(UsageError, match=message):
        sources(model.description, [tmp_path / name for name in names], pair)


def drawn(model: Model, monkeypatch: pytest.MonkeyPatch, times: list[int], mixes: int) -> list[tuple[str, Tensor]]:
    """The columns' labels and the rows of the picture."""
    seen: list[tuple[str, Tensor]] = []
    monkeypatch.setattr(
        figures,
        "strip",
        lambda _path, _title, columns, rows: seen.extend([(" ".join(columns), torch.empty(0)), *rows]),
    )
    picture(model, PAIR, times, mixes, settings(model.description, Options("ancestral")), Path("out.png"))
    return seen


def test_every_row_shows_the_mixes_of_its_time_between_the_images(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (columns, _), *rows = drawn(model, monkeypatch, [3, 10], 3)
    assert columns == r"image $\lambda=0$ $\lambda=0.5$ $\lambda=1$ image"
    assert [label for label, _ in rows] == ["$t=3$", "$t=10$"]
    x_0 = PAIR / 127.5 - 1
    for time, (_, row) in zip((3, 10), rows, strict=True):
        mixed = interpolate(model.denoiser, x_0, time, 3, settings(model.description, Options("ancestral")))
        assert row.shape == (5, 1, 4, 4)
        assert row[[0, 4]].equal(PAIR)
        torch.testing.assert_close(row[1:4].float() / 127.5 - 1, mixed.clamp(-1, 1), rtol=0, atol=0.004)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--at", 0], "ddpm: --at 0: must be between 1 and the model's 10 timesteps"),
        (["--at", 3, "--at", 11], "ddpm: --at 11: must be between 1 and the model's 10 timesteps"),
        (["--mixes", 1], "ddpm: --mixes 1: must be at least 2, for both ends"),
        (["--steps", 11], "ddpm: --steps 11: must be at most diffusion.timesteps = 10"),
        (["--out", "out.gif"], "ddpm: --out out.gif: must end in .png"),
    ],
)
def test_an_error_is_one_message_and_leaves_no_file(
    options: list[object], message: str, model_file: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("--model", model_file, "--images", packed, "--pair", 0, 1, "--out", "out.png", *options)
    assert (result.exit_code, result.stdout, result.stderr.rstrip()) == (1, "", message)
    assert not list(tmp_path.glob("out.*"))


def test_the_options_of_the_command_reach_the_sampler(
    model_file: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Sample] = []
    monkeypatch.setattr("lab.commands.interpolate.picture", lambda *arguments: seen.append(arguments[4]))
    for options in ([], ["--sigma", "small"], ["--sampler", "ddim", "--eta", 0, "--spacing", "leading", "--no-clip"]):
        assert run("--model", model_file, "--images", packed, "--pair", 0, 1, "--out", "x.png", *options).exit_code == 0
    assert [(one.sampler, one.sigma, one.eta, one.spacing, one.clip) for one in seen] == [
        ("ancestral", "large", None, "trailing", True),
        ("ancestral", "small", None, "trailing", True),
        ("ddim", None, 0.0, "leading", False),
    ]


@pytest.mark.parametrize(
    ("process", "options"),
    [
        (None, []),
        (None, ["--sampler", "dpm_solver"]),
        (None, ["--sampler", "ddim", "--eta", "0", "--spacing", "leading", "--no-clip"]),
        (COURSE, []),
    ],
)
def test_the_command_writes_a_picture_for_every_process(
    process: dict[str, object] | None, options: list[str], make_model: MakeModel, packed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    result = run(
        "--model", make_model(diffusion=process), "--images", packed, "--pair", 0, 4, "--at", 1, "--at", 10,
        *options, "--mixes", 3, "--out", out, "--device", "cpu",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, f"{out}\n")
    with Image.open(out) as shown:
        assert shown.width > 5 * 50


def test_the_help_of_pair_has_the_form_of_its_values() -> None:
    assert re.search(r"--pair +INT INT", CliRunner().invoke(app, ["interpolate", "--help"]).stdout)
