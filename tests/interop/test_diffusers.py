"""Export to diffusers and import from it: the same weights and the same outputs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file
from torch import Tensor

from ddpm.diffusion import process, schedule
from ddpm.diffusion.denoiser import Denoiser
from ddpm.errors import UsageError
from ddpm.interop import diffusers
from ddpm.network.modelfile import Description
from ddpm.params import BasicNetwork, Gaussian, Interpolation, UNetNetwork
from tests.sampling.chains import ancestral

NETWORKS: dict[str, dict[str, Any]] = {
    "with attention": {},
    "attention in the middle alone": {"attention": []},
    "attention at all sizes": {"attention": [16, 8], "multipliers": [1, 1]},
    "eight heads": {"channels": 16, "heads": 8, "attention": []},
    "heads at two sizes": {"heads": 2, "multipliers": [1, 2, 2]},
    "symmetric": {"downsample": "symmetric", "blocks": 2},
    "four levels": {"multipliers": [1, 2, 1, 3], "attention": [8, 2], "norm_eps": 1e-5},
}
each_network = pytest.mark.parametrize("changes", NETWORKS.values(), ids=NETWORKS)
State = dict[str, Tensor]


@pytest.fixture
def description(diffusion_settings: Gaussian, network_settings: UNetNetwork) -> Description:
    """One head, and colour images of 16 x 16 with attention at 8 x 8."""
    network = network_settings.model_copy(update={"heads": 1, "attention": [8]})
    return Description(diffusion_settings, network, (3, 16, 16), ())


def changed(description: Description, **changes: Any) -> Description:
    """The description with each change applied to the section that has its key."""
    sections = [
        section.model_copy(update={key: value for key, value in changes.items() if key in type(section).model_fields})
        for section in (description.diffusion, description.network)
    ]
    return Description(*sections, description.image_shape, description.classes)


def state_of(description: Description) -> State:
    """Random weights, none of them zero."""
    torch.manual_seed(0)
    return {
        name: 0.3 * torch.randn(weight.shape) + (1 if name.endswith("weight") and weight.dim() == 1 else 0)
        for name, weight in description.build().state_dict().items()
    }


def computed(description: Description, state: State, index: Tensor) -> Tensor:
    network = description.build()
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)(noisy(len(index)), index)


def noisy(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def theirs(folder: Path) -> UNet2DModel:
    network, report = UNet2DModel.from_pretrained(folder / "unet", output_loading_info=True, local_files_only=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return network.eval().requires_grad_(False)


def edited(path: Path, **changes: Any) -> None:
    """Change values of a config file; the value `...` removes the key."""
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


@each_network
def test_exported_network_computes_the_same(description: Description, tmp_path: Path, changes: dict[str, Any]) -> None:
    description = changed(description, **changes)
    state, index = state_of(description), torch.tensor([0, 3, 19])
    diffusers.export(description, state, tmp_path)
    ours = computed(description, state, index)
    assert ours.std() > 0.1
    torch.testing.assert_close(
        theirs(tmp_path)(noisy(3), index).sample / ours.std(), ours / ours.std(), rtol=0, atol=1e-5
    )


def test_exported_files_have_the_mode_of_a_new_file(description: Description, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    diffusers.export(description, state_of(description), tmp_path / "exported")
    exported = [path for path in (tmp_path / "exported").rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in exported} == {(tmp_path / "new").stat().st_mode}
    assert len(exported) == 4


@each_network
def test_import_restores_the_exported_model(description: Description, tmp_path: Path, changes: dict[str, Any]) -> None:
    description = changed(description, **changes)
    state = state_of(description)
    diffusers.export(description, state, tmp_path)
    imported = diffusers.read(tmp_path)
    assert imported.description == description
    torch.testing.assert_close(dict(imported.weights), state, rtol=0, atol=0)


@pytest.mark.parametrize(("sigma", "clip"), [(None, True), ("large", False), ("small", True)])
def test_sampling_settings_are_exported_and_imported(
    description: Description, tmp_path: Path, sigma: str | None, clip: bool
) -> None:
    diffusers.export(description, state_of(description), tmp_path, sigma, clip)
    assert diffusers.read(tmp_path).sampling == {"sigma": sigma or "large", "clip": clip}
    scheduler = DDPMPipeline.from_pretrained(tmp_path, local_files_only=True).scheduler
    assert (scheduler.config.variance_type, scheduler.config.clip_sample) == (f"fixed_{sigma or 'large'}", clip)


@pytest.mark.parametrize(
    ("changes", "sigma", "message"),
    [
        ({}, "huge", "sigma = 'huge': must be large or small"),
        ({"variance": "learned_range"}, "small", "sigma = 'small': the model has a learned variance"),
    ],
)
def test_export_refuses_a_sigma_that_the_model_cannot_have(
    description: Description, tmp_path: Path, changes: dict[str, Any], sigma: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        diffusers.export(changed(description, **changes), {}, tmp_path / "out", sigma)


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "quad"},
        {"schedule": "const", "beta_start": None},
        {"schedule": "warmup10"},
        {"schedule": "warmup50"},
        {"schedule": "jsd", "beta_start": None, "beta_end": None, "prediction": "x_0"},
        {"schedule": "cosine", "beta_start": None, "beta_end": None, "prediction": "v"},
        {"schedule": "sigmoid", "beta_start": None, "beta_end": None},
        {"variance": "learned_range", "timesteps": 30},
    ],
    ids=str,
)
def test_scheduler_has_the_same_alpha_bar_and_import_restores_the_process(
    description: Description, tmp_path: Path, changes: dict[str, Any]
) -> None:
    description = changed(description, **changes)
    diffusers.export(description, state_of(description), tmp_path)
    scheduler = DDPMPipeline.from_pretrained(tmp_path, local_files_only=True).scheduler
    expected = torch.as_tensor(schedule.alpha_bar(description.diffusion)[1:]).float()
    torch.testing.assert_close(scheduler.alphas_cumprod, expected, rtol=1e-4, atol=1e-6)
    assert scheduler.config.num_train_timesteps == description.diffusion.timesteps
    assert diffusers.read(tmp_path).description == description


def test_pipeline_gives_the_samples_of_the_exported_model(description: Description, tmp_path: Path) -> None:
    state = state_of(description)
    diffusers.export(description, state, tmp_path)
    pipeline = DDPMPipeline.from_pretrained(tmp_path, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(2)
    images = pipeline(batch_size=2, generator=generator, num_inference_steps=20, output_type="np").images
    generator.manual_seed(2)
    network = description.build()
    network.load_state_dict(state)
    denoiser = Denoiser(network.eval(), process.from_settings(description.diffusion), description.diffusion)

    def noise() -> Tensor:
        return torch.randn(2, 3, 16, 16, generator=generator)

    with torch.no_grad():
        *_, last = ancestral(denoiser, noise(), range(20, 0, -1), noise, "large", clip=True)
    expected = (last.x_0.permute(0, 2, 3, 1).numpy() + 1) / 2
    np.testing.assert_allclose(images, expected, rtol=0, atol=1e-3)


def test_exported_network_without_time_computes_the_same_at_every_time(
    description: Description, tmp_path: Path
) -> None:
    description = changed(description, time=False)
    state, index = state_of(description), torch.tensor([0, 7, 19])
    diffusers.export(description, state, tmp_path)
    ours = computed(description, state, index)
    torch.testing.assert_close(theirs(tmp_path)(noisy(3), index).sample, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "mu"}, "diffusion.prediction = 'mu': no scheduler of diffusers supports a predicted mean"),
        ({"variance": "learned"}, "diffusion.variance = 'learned': diffusers reads the logarithm"),
        ({"value_range": [0.0, 1.0]}, r"diffusion.value_range = \[0.0, 1.0\]: must be \[-1.0, 1.0\] for"),
        ({"conditional": True}, "network.conditional = True: DDPMPipeline passes no labels"),
        ({"multipliers": [2, 2]}, r"network.multipliers = \[2, 2\]: must begin with 1"),
        ({"heads": 2, "attention": [16]}, r"network.heads = 2: .* on \[8, 16\] channels"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_error_names_the_setting_that_diffusers_cannot_express(
    description: Description, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=f"diffusers cannot express this model:\n  {message}"):
        diffusers.export(changed(description, **changes), {}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_error_names_the_process_and_the_network_of_the_course(description: Description, tmp_path: Path) -> None:
    interpolation = Interpolation(
        process="interpolation", timesteps=20, prediction="x_0", variance="fixed", value_range=[-1.0, 1.0]
    )
    basic = BasicNetwork(kind="basic", channels=8, multipliers=[1, 2], time=False, conditional=False)
    with pytest.raises(UsageError, match=r"diffusion\.process = 'interpolation': diffusers has no scheduler"):
        diffusers.export(replace(description, diffusion=interpolation), {}, tmp_path)
    with pytest.raises(UsageError, match=r"network\.kind = 'basic': diffusers has no such network"):
        diffusers.export(replace(description, network=basic), {}, tmp_path)


def test_diffusers_does_not_read_a_learned_variance_as_a_log_variance() -> None:
    """Diffusers takes the square root of the output that the paper's code reads as log variance; export refuses it."""
    scheduler = DDPMScheduler(20, variance_type="learned")
    output = torch.cat([torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), -4.0)], dim=1)
    assert scheduler.step(output, 10, torch.zeros(1, 3, 4, 4)).prev_sample.isnan().all()


def test_first_layout_is_read_with_its_old_attention_names(description: Description, tmp_path: Path) -> None:
    state = state_of(description)
    diffusers.export(description, state, tmp_path / "new")
    old = tmp_path / "old"
    old.mkdir()
    for part, name in (("unet", "config.json"), ("scheduler", "scheduler_config.json")):
        (tmp_path / "new" / part / name).rename(old / name)
    edited(old / "config.json", dropout=..., add_attention=..., upsample_type=..., num_class_embeds=...)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    named = load_file(tmp_path / "new" / "unet" / "diffusion_pytorch_model.safetensors")
    for new, previous in names.items():
        named = {name.replace(new, previous): tensor for name, tensor in named.items()}
    assert "mid_block.attentions.0.proj_attn.weight" in named
    torch.save(named, old / "diffusion_pytorch_model.bin")
    imported = diffusers.read(old)
    assert imported.description == description
    torch.testing.assert_close(dict(imported.weights), state, rtol=0, atol=0)


def test_imported_network_computes_the_same_as_that_of_diffusers(tmp_path: Path) -> None:
    """Use a network like those of the Hugging Face tutorials: cosines first, symmetric padding, heads of 8 channels.

    Only `freq_shift` is different.
    """
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=16,
        block_out_channels=(16, 32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        freq_shift=1,
        norm_num_groups=8,
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    DDPMPipeline(network, DDPMScheduler(20, prediction_type="v_prediction")).save_pretrained(tmp_path)
    imported = diffusers.read(tmp_path)
    settings, index = imported.description.network, torch.tensor([0, 3, 19])
    assert isinstance(settings, UNetNetwork)
    assert (settings.heads, settings.attention, settings.downsample) == (4, [4], "symmetric")
    assert imported.sampling == {"sigma": "small", "clip": True}
    expected = network.eval()(noisy(3), index).sample.detach()
    torch.testing.assert_close(
        computed(imported.description, dict(imported.weights), index), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (
            "unet",
            {"down_block_types": ["DownBlock2D", "SkipDownBlock2D"]},
            r"down_block_types\.1 = 'SkipDownBlock2D': must be 'DownBlock2D' or 'AttnDownBlock2D'",
        ),
        (
            "unet",
            {"up_block_types": ["AttnUpBlock2D", "UpBlock2D"]},
            r"up_block_types = \[.*\]: must mirror down_block",
        ),
        ("unet", {"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift = 'scale_shift': must be 'def"),
        ("unet", {"freq_shift": 0}, "freq_shift = 0: must be 1"),
        ("unet", {"freq_shift": ...}, "freq_shift: is missing"),
        ("unet", {"downsample_padding": 2}, "downsample_padding = 2: must be 0 or 1"),
        ("unet", {"attention_head_dim": 16}, "attention_head_dim = 16: must divide the channels"),
        ("unet", {"attention_head_dim": 3}, "attention_head_dim = 3: must divide the channels"),
        ("unet", {"block_out_channels": [8, 12]}, r"block_out_channels = \[8, 12\]: must be multiples of the first"),
        ("unet", {"sample_size": [16, 8]}, r"sample_size = \[16, 8\]: must be a valid integer"),
        ("unet", {"out_channels": 6}, "out_channels = 6: must be 3 for the scheduler's variance_type"),
        ("unet", {"num_class_embeds": 10}, "num_class_embeds = 10: must be None"),
        ("unet", {"gating": 1}, "gating = 1: is unknown"),
        ("unet", {"": 1}, " = 1: is unknown"),
        ("unet", {"sample_size": 10**30}, f"sample_size = {10**30}: must be at most 4,096"),
        ("unet", {"layers_per_block": 10**9}, "layers_per_block = 1000000000: must be at most 100"),
        ("unet", {"dropout": None}, "dropout = None: must be a valid number"),
        ("unet", {"norm_eps": None}, "norm_eps = None: must be a valid number"),
        ("unet", {"norm_eps": "a"}, "norm_eps = 'a': must be a valid number"),
        ("unet", {"norm_eps": float("nan")}, "norm_eps = nan: must be a finite number"),
        ("unet", {"down_block_types": None}, "down_block_types = None: must be a valid list"),
        (
            "unet",
            {"up_block_types": [["UpBlock2D"]]},
            r"up_block_types\.0 = \['UpBlock2D'\]: must be 'UpBlock2D' or 'AttnU",
        ),
        (
            "unet",
            {"down_block_types": [], "up_block_types": []},
            r"up_block_types = \[\]: must mirror down_block",
        ),
        ("unet", {"block_out_channels": 32}, "block_out_channels = 32: must be a valid list"),
        ("unet", {"block_out_channels": None}, "block_out_channels = None: must be a valid list"),
        ("unet", {"block_out_channels": ["32", "64"]}, r"block_out_channels\.0 = '32': must be a valid integer"),
        ("unet", {"block_out_channels": [0, 64]}, r"block_out_channels\.0 = 0: must be at least 1"),
        ("unet", {"block_out_channels": []}, r"block_out_channels = \[\]: list must have at least 1 item"),
        ("unet", {"attention_head_dim": [8, 8]}, r"attention_head_dim = \[8, 8\]: must be a valid integer"),
        ("unet", {"attention_head_dim": "x"}, "attention_head_dim = 'x': must be a valid integer"),
        ("unet", {"flip_sin_to_cos": "no"}, "flip_sin_to_cos = 'no': must be a valid boolean"),
        ("scheduler", {"prediction_type": "flow"}, "prediction_type = 'flow': must be 'epsilon', 'sample' or 'v_pred"),
        ("scheduler", {"variance_type": "learned"}, "variance_type = 'learned': must be 'fixed_large', 'f"),
        (
            "scheduler",
            {"beta_schedule": "sigmoid"},
            "beta_schedule = 'sigmoid': is not a schedule of params",
        ),
        ("scheduler", {"trained_betas": [0.3, 0.1]}, r"trained_betas = '\[0.3, 0.1\]': is not a schedule"),
        ("scheduler", {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True: must be False"),
        ("scheduler", {"thresholding": True}, "thresholding = True: must be False"),
        ("scheduler", {"predict_epsilon": False}, "predict_epsilon = False: must be True"),
        ("scheduler", {"clip_sample_range": 2.0}, r"clip_sample_range = 2\.0: must be 1"),
        ("scheduler", {"num_train_timesteps": ...}, "num_train_timesteps: is missing"),
        ("scheduler", {"num_train_timesteps": "9"}, "num_train_timesteps = '9': must be a valid integer"),
        ("scheduler", {"num_train_timesteps": 10**12}, f"num_train_timesteps = {10**12}: must be at most 100,000"),
        ("scheduler", {"beta_end": "high"}, "beta_end = 'high': must be a valid number"),
        ("scheduler", {"beta_schedule": ["linear"]}, r"beta_schedule = \['linear'\]: must be a valid string"),
        ("scheduler", {"trained_betas": []}, r"trained_betas = \[\]: list must have at least 1 item"),
        ("scheduler", {"trained_betas": 5}, "trained_betas = 5: must be a valid list"),
        ("scheduler", {"trained_betas": "abc"}, "trained_betas = 'abc': must be a valid list"),
        ("scheduler", {"trained_betas": [[1, 2]]}, r"trained_betas\.0 = \[1, 2\]: must be a valid number"),
        ("scheduler", {"trained_betas": [-0.1, 0.1]}, r"trained_betas\.0 = -0\.1: must be at least 0"),
        ("scheduler", {"prediction_type": None}, "prediction_type = None: must be 'epsilon', "),
        ("scheduler", {"variance_type": ["x"]}, r"variance_type = \['x'\]: must be 'fixed_large', "),
        ("scheduler", {"clip_sample": None}, "clip_sample = None: must be a valid boolean"),
        ("scheduler", {"clip_sample": "no"}, "clip_sample = 'no': must be a valid boolean"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_error_names_the_key_that_this_project_cannot_express(
    description: Description, tmp_path: Path, part: str, changes: dict[str, Any], message: str
) -> None:
    diffusers.export(changed(description, attention=[16]), state_of(description), tmp_path)
    path = tmp_path / part / {"unet": "config.json", "scheduler": "scheduler_config.json"}[part]
    edited(path, **changes)
    with pytest.raises(UsageError, match=rf"{path} cannot be imported:(.*\n)*  {message}"):
        diffusers.read(tmp_path)


def test_error_lists_all_problems_with_one_line_for_each_key(description: Description, tmp_path: Path) -> None:
    diffusers.export(description, state_of(description), tmp_path)
    path = tmp_path / "unet" / "config.json"
    edited(path, freq_shift=..., block_out_channels=["8", "16"], act_fn="gelu", gating=1)
    with pytest.raises(UsageError) as caught:
        diffusers.read(tmp_path)
    assert str(caught.value).splitlines() == [
        f"{path} cannot be imported:",
        "  block_out_channels.0 = '8': must be a valid integer",
        "  freq_shift: is missing",
        "  act_fn = 'gelu': must be 'silu'",
        "  gating = 1: is unknown",
    ]


def test_first_layout_is_read_with_null_and_absent_keys(description: Description, tmp_path: Path) -> None:
    """Use the keys of google/ddpm-cifar10-32 (diffusers 0.0.4 and 0.1.1); the others are null or absent."""
    state = state_of(description)
    diffusers.export(description, state, tmp_path)
    unet = json.loads((tmp_path / "unet" / "config.json").read_text())
    keys = ("act_fn attention_head_dim block_out_channels center_input_sample down_block_types downsample_padding "
           "flip_sin_to_cos freq_shift in_channels layers_per_block mid_block_scale_factor norm_eps norm_num_groups "
           "out_channels sample_size time_embedding_type up_block_types")  # fmt: skip
    assert unet["attention_head_dim"] is None
    old = {"_class_name": "UNet2DModel", "_diffusers_version": "0.0.4"} | {key: unet[key] for key in keys.split()}
    (tmp_path / "unet" / "config.json").write_text(json.dumps(old))
    path = tmp_path / "scheduler" / "scheduler_config.json"
    edited(path, trained_betas=None, variance_type="fixed_large", prediction_type=..., timestep_values=None)
    imported = diffusers.read(tmp_path)
    assert imported.description == description
    assert imported.sampling == {"sigma": "large", "clip": True}


@pytest.mark.parametrize("sigma", ["large", "small"])
def test_log_forms_of_the_fixed_variances_are_read_as_the_variances(
    description: Description, tmp_path: Path, sigma: str
) -> None:
    diffusers.export(description, state_of(description), tmp_path)
    edited(tmp_path / "scheduler" / "scheduler_config.json", variance_type=f"fixed_{sigma}_log")
    imported = diffusers.read(tmp_path)
    assert imported.sampling["sigma"] == sigma
    assert imported.description == description


def test_beta_start_and_beta_end_may_be_null_beside_a_list_of_betas(description: Description, tmp_path: Path) -> None:
    description = changed(description, schedule="warmup10")
    diffusers.export(description, state_of(description), tmp_path)
    edited(tmp_path / "scheduler" / "scheduler_config.json", beta_start=None, beta_end=None)
    assert diffusers.read(tmp_path).description == description


def test_error_names_weights_that_do_not_fit_the_config(description: Description, tmp_path: Path) -> None:
    diffusers.export(description, state_of(description), tmp_path)
    edited(tmp_path / "unet" / "config.json", layers_per_block=2)
    with pytest.raises(
        UsageError, match=r"(?s)does not hold the described U-Net.*resnets\.1\.norm1\.weight is missing.* more"
    ):
        diffusers.read(tmp_path)
    edited(tmp_path / "unet" / "config.json", layers_per_block=1, block_out_channels=[16, 16])
    with pytest.raises(UsageError, match=r"linear_1\.weight is \[32, 8\] instead of \[64, 16\]"):
        diffusers.read(tmp_path)


def test_error_names_settings_that_no_model_can_have(description: Description, tmp_path: Path) -> None:
    diffusers.export(description, state_of(description), tmp_path)
    edited(tmp_path / "unet" / "config.json", norm_num_groups=3)
    with pytest.raises(UsageError, match=r"is not a model of this project:\n  network\.groups = 3: must divide"):
        diffusers.read(tmp_path)
    edited(tmp_path / "scheduler" / "scheduler_config.json", beta_end=2)
    with pytest.raises(
        UsageError, match=r"is not a model of this project:\n  diffusion\.beta_end = 2\.0: must be less than 1$"
    ):
        diffusers.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a JSON object"),
        ("[1]", "is not a JSON object"),
        ('[["_class_name", "UNet2DModel"], [1, 2]]', "is not a JSON object"),
        ("[" * 100_000, "is not a JSON object"),
        ('{"_class_name": "UNet2DConditionModel"}', "_class_name = 'UNet2DConditionModel': must be UNet2DModel"),
        (None, "is not a model of diffusers: config.json is missing"),
    ],
)
def test_error_names_a_folder_that_is_not_a_pipeline(
    description: Description, tmp_path: Path, text: str | None, message: str
) -> None:
    diffusers.export(description, state_of(description), tmp_path)
    path = tmp_path / "unet" / "config.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(UsageError, match=f"{tmp_path}.*{message}"):
        diffusers.read(tmp_path)
