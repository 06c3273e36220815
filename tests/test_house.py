"""Imports point down the list of layers, and each layer imports only the packages that it may."""

import ast
import subprocess
import sys
import tomllib

import pytest

from tests.imports import ROOT, imported, modules, path_of

LAYERS = [
    "stages",
    "lab.commands",
    "lab.kept",
    "lab.stage",
    "lab.tracking",
    "lab.pages",
    "lab.experiment",
    "lab",
    "ddpm.interop",
    "ddpm.evaluation",
    "ddpm.sampling",
    "ddpm.training",
    "ddpm.data",
    "ddpm.network",
    "ddpm.diffusion",
    "ddpm",
]
STAGES = {"prepare", "reference", "train", "sample", "evaluate", "report"}
ALLOWED_OUTSIDE = {  # heavy or optional packages, and the only modules that may import them
    "mlflow": {f"lab.tracking.{name}" for name in ("live", "publish", "run", "served", "store")},
    "torch_fidelity": {"ddpm.evaluation.extractor", "ddpm.evaluation.fidelity"},
    "sklearn": {"ddpm.data.sources"},
    "torchvision": {"ddpm.data.sources"},
    "matplotlib": {"ddpm.figures", "lab.pages.plots"},
    "jinja2": {"lab.pages.templates"},
    "dvc": {"lab.commands.check"},
    "diffusers": set(),
}


def layer(module: str) -> int:
    return next(i for i, name in enumerate(LAYERS) if module == name or module.startswith(name + "."))


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module: str) -> None:
    upwards = {name for name in imported(module) if layer(name) < layer(module)}
    assert not upwards, f"{module} imports {upwards} from above"


def test_there_are_no_circular_imports() -> None:
    """Imports inside functions count, too."""
    for start in modules():
        seen: set[str] = set()
        waiting = list(imported(start) - {start})
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += imported(module) - {module}
        assert start not in seen, f"{start} imports itself through other modules"


def test_stages_holds_the_six_stages_and_nothing_else() -> None:
    assert {path.stem for path in (ROOT / "stages").glob("*.py")} == STAGES | {"__init__"}
    assert not [path for path in (ROOT / "stages").iterdir() if path.is_dir() and path.name != "__pycache__"]


@pytest.mark.parametrize("package", ALLOWED_OUTSIDE)
def test_heavy_packages_are_imported_only_by_the_listed_modules(package: str) -> None:
    importers = {module for module in modules() if package in outside(module)}
    assert importers == ALLOWED_OUTSIDE[package]


ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
for module in {modules}:
    __import__(module)
"""


def test_ddpm_needs_only_torch_numpy_pydantic_and_safetensors() -> None:
    absent = ["dvc", "mlflow", "yaml", "ruamel", "pandas", "sklearn", "matplotlib", "PIL", "torchvision", "tqdm"]
    absent += ["torch_fidelity", "jinja2", "typer", "filelock"]
    ddpm_modules = [module for module in modules() if module.split(".")[0] == "ddpm"]
    assert len(ddpm_modules) > 40
    script = ALONE.format(absent=set(absent), modules=ddpm_modules)
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_ddpm_prints_nothing() -> None:
    for module in modules():
        if module.startswith("ddpm"):
            calls = [node for node in ast.walk(parsed(module)) if isinstance(node, ast.Call)]
            assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"], module


def test_page_templates_are_installed_with_the_code() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    installed = {path for pattern in settings["package-data"]["lab"] for path in (ROOT / "lab").glob(pattern)}
    assert installed == {path for path in (ROOT / "lab").rglob("*.html") if path.is_file()} != set()


def test_every_public_definition_has_a_docstring() -> None:
    undocumented = [
        f"{module}.{node.name}"
        for module in modules()
        for node in parsed(module).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
    ]
    assert not undocumented


def test_no_module_has_a_meaningless_name() -> None:
    assert not {"utils", "helpers", "common", "misc"} & {part for module in modules() for part in module.split(".")}


def outside(module: str) -> set[str]:
    """The top-level names of the packages that a module imports, also inside functions."""
    tree = parsed(module)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def parsed(module: str) -> ast.Module:
    path = path_of(module)
    assert path is not None
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))
