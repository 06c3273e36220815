"""Sampling options: defaults that fit the model, and conflicts that name the option."""

import subprocess
import sys
from dataclasses import replace
from typing import Any, get_args, get_type_hints

import pytest

from ddpm.network.modelfile import Description
from ddpm.params import Conflict, ConflictError, Gaussian, Interpolation, Sample, UNetNetwork
from ddpm.sampling.options import Options, settings

COURSE = Interpolation(
    process="interpolation", timesteps=20, prediction="x_0", variance="fixed", value_range=[0.0, 1.0]
)


@pytest.fixture
def description(diffusion_settings: Gaussian, network_settings: UNetNetwork) -> Description:
    """An unconditional model of 20 timesteps."""
    return Description(diffusion_settings, network_settings, (3, 8, 8), ["cat", "dog"])


@pytest.fixture
def conditional(description: Description) -> Description:
    return replace(description, network=description.network.model_copy(update={"conditional": True}))


def changed(description: Description, **diffusion: Any) -> Description:
    return replace(description, diffusion=description.diffusion.model_copy(update=diffusion))


def conflicts(description: Description, **options: Any) -> list[Conflict]:
    with pytest.raises(ConflictError) as caught:
        settings(description, Options(**options))
    return list(caught.value.conflicts)


def named(conflicts: list[Conflict]) -> list[tuple[str, object]]:
    """The keys and values of conflicts."""
    return [(conflict.key, conflict.value) for conflict in conflicts]


@pytest.mark.parametrize(
    ("sampler", "steps", "eta", "sigma"),
    [("ddim", 50, 1.0, None), ("dpm_solver", 20, None, None), ("ancestral", 1000, None, "large")],
)
def test_every_sampler_has_its_defaults(
    sampler: Any, steps: int, eta: float | None, sigma: str | None, description: Description
) -> None:
    chosen = settings(changed(description, timesteps=1000), Options(sampler=sampler))
    assert chosen == Sample(
        seed=0, count=16, batch_size=256, sampler=sampler, steps=steps, spacing="trailing", eta=eta, sigma=sigma,
        clip=True, guidance=None, precision="fp32",
    )  # fmt: skip


def test_steps_are_at_most_the_timesteps_of_the_model(description: Description) -> None:
    for sampler in ("ddim", "dpm_solver", "ancestral"):
        assert settings(changed(description, timesteps=10), Options(sampler=sampler)).steps == 10


def test_the_sampler_none_is_ancestral_or_ddim_on_the_interpolation_process(description: Description) -> None:
    assert settings(description, Options(sampler=None)).sampler == "ancestral"
    assert settings(replace(description, diffusion=COURSE), Options(sampler=None)).sampler == "ddim"


def test_ddim_on_the_interpolation_process_has_eta_0(description: Description) -> None:
    course = replace(description, diffusion=COURSE)
    assert settings(course, Options()) == settings(course, Options(eta=0.0))
    assert settings(course, Options()).eta == 0
    with pytest.raises(ConflictError, match="eta"):
        settings(course, Options(eta=0.5))


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_a_learned_variance_has_no_sigma(description: Description, variance: str) -> None:
    assert settings(changed(description, variance=variance), Options("ancestral")).sigma is None


def test_given_options_are_used(description: Description) -> None:
    given = {"count": 3, "seed": 5, "steps": 7, "spacing": "linspace", "clip": False}
    for own in ({"sampler": "ancestral", "sigma": "small"}, {"sampler": "ddim", "eta": 0.25}):
        chosen = settings(description, Options(**given | own)).model_dump()
        assert {key: chosen[key] for key in given | own} == given | own


def test_a_label_alone_has_guidance_2(conditional: Description) -> None:
    assert settings(conditional, Options(label=["cat"])).guidance == 2.0
    assert settings(conditional, Options(label=["cat"], guidance=0.5)).guidance == 0.5
    assert settings(conditional, Options(guidance=0.5)).guidance == 0.5
    assert settings(conditional, Options()).guidance is None


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("sampler", "euler", "must be 'ancestral', 'ddim' or 'dpm_solver'"),
        ("steps", 21, "must be at most diffusion.timesteps = 20"),
        ("steps", 0, "must be at least 1"),
        ("count", 0, "must be at least 1"),
        ("seed", -1, "must be at least 0"),
        ("seed", 2**63, "must be less than 9223372036854775808"),
        ("eta", 1.5, "must be at most 1"),
        ("sigma", "huge", "must be 'large' or 'small'"),
        ("spacing", "even", "must be 'leading', 'trailing', 'linspace' or 'quad'"),
    ],
)
def test_a_value_that_is_not_allowed_is_a_conflict(
    key: str, value: object, rule: str, description: Description
) -> None:
    assert conflicts(description, **{key: value}) == [Conflict(f"sample.{key}", value, rule)]


def test_all_values_that_are_not_allowed_are_reported_at_once(description: Description) -> None:
    assert [conflict.key for conflict in conflicts(description, count=0, seed=-1)] == ["sample.seed", "sample.count"]


@pytest.mark.parametrize("sampler", ["ancestral", "dpm_solver"])
def test_eta_is_refused_for_other_samplers_than_ddim(sampler: str, description: Description) -> None:
    assert named(conflicts(description, sampler=sampler, eta=0.5)) == [("sample.eta", 0.5)]


def test_sigma_is_refused_where_it_is_not_used(description: Description) -> None:
    learned = changed(description, variance="learned_range")
    for model, sampler in ((description, "ddim"), (description, "dpm_solver"), (learned, "ancestral")):
        assert named(conflicts(model, sampler=sampler, sigma="small")) == [("sample.sigma", "small")]


def test_label_and_guidance_are_refused_for_an_unconditional_model(description: Description) -> None:
    assert named(conflicts(description, label=["cat", "1"])) == [("sample.label", "cat, 1")]
    assert named(conflicts(description, guidance=0.0)) == [("sample.guidance", 0.0)]


def test_a_sampler_that_the_model_does_not_allow_is_a_conflict(description: Description) -> None:
    course = replace(description, diffusion=COURSE)
    assert [conflict.key for conflict in conflicts(course, sampler="dpm_solver")] == ["sample.sampler"]
    learned = changed(description, variance="learned")
    assert [conflict.key for conflict in conflicts(learned, sampler="ancestral", steps=5)] == ["sample.steps"]


def test_choices_are_those_of_the_schema() -> None:
    options, schema = get_type_hints(Options), get_type_hints(Sample)
    for key in ("sampler", "spacing", "sigma"):
        assert choices(options[key]) == choices(schema[key]) != set(), key
    assert set(options) == set(schema) - {"batch_size"} | {"label"}


def choices(annotation: Any) -> set[str]:
    """The values of a `Literal`, alone or in a union."""
    return {value for part in (annotation, *get_args(annotation)) for value in get_args(part) if isinstance(value, str)}


def test_importing_the_options_does_not_import_torch() -> None:
    script = "import sys, ddpm.sampling.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
