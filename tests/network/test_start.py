"""Training starts only from a model file with compatible settings."""

from pathlib import Path
from typing import Any

import pytest

from ddpm.files import TensorFileError
from ddpm.network import modelfile
from ddpm.network.modelfile import Description
from ddpm.params import Gaussian, UNetNetwork


@pytest.fixture
def description(diffusion_settings: Gaussian, network_settings: UNetNetwork) -> Description:
    return Description(diffusion_settings, network_settings, (3, 8, 8), ("cat", "dog"))


@pytest.fixture
def path(tmp_path: Path, description: Description) -> Path:
    path = tmp_path / "model.safetensors"
    modelfile.save(path, description, description.build().state_dict())
    return path


def changed(description: Description, **changes: Any) -> Description:
    sections = [
        section.model_copy(update={key: value for key, value in changes.items() if key in type(section).model_fields})
        for section in (description.diffusion, description.network)
    ]
    return Description(*sections, description.image_shape, description.classes)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("key", "value"),
    [("heads", 4), ("groups", 2), ("norm_eps", 1e-5), ("time", False), ("downsample", "symmetric")],
)
def test_settings_that_change_no_weight_shape_must_match(
    description: Description, path: Path, key: str, value: object, whole: bool
) -> None:
    other = changed(description, **{key: value})
    modelfile.initialise(other.build(), path)  # the weights fit
    expected = getattr(description.network, key)
    with pytest.raises(
        TensorFileError, match=rf"model\.safetensors needs other settings:\n  network\.{key} = .*: must be"
    ) as caught:
        modelfile.check_compatible(path, other, whole)
    assert str(caught.value).endswith(f"= {value!r}: must be {expected!r}")


@pytest.mark.parametrize("changes", [{"prediction": "v"}, {"beta_end": 0.3}, {"timesteps": 30}])
def test_process_must_match_only_if_nothing_is_trained(
    description: Description, path: Path, changes: dict[str, Any]
) -> None:
    (key,) = changes
    with pytest.raises(TensorFileError, match=rf"\n  diffusion\.{key} = {changes[key]!r}: must be [^\n]*$"):
        modelfile.check_compatible(path, changed(description, **changes), whole=True)
    modelfile.check_compatible(path, changed(description, **changes), whole=False)


@pytest.mark.parametrize("whole", [True, False])
def test_dropout_may_differ(description: Description, path: Path, whole: bool) -> None:
    modelfile.check_compatible(path, changed(description, dropout=0.3), whole)
