"""The imports of the code, read from its source."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


def modules() -> list[str]:
    """Every module of ddpm, lab and stages, as dotted names."""
    files = [path for top in ("ddpm", "lab", "stages") for path in sorted((ROOT / top).rglob("*.py"))]
    return [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in files]


def path_of(module: str) -> Path | None:
    """The module's file, relative to the repository; None for a module of another project."""
    base = Path(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if (ROOT / candidate).is_file():
            return candidate
    return None


@cache
def imported(module: str) -> frozenset[str]:
    """The modules of this repository that a module imports, also inside functions and for type checking."""
    path = path_of(module)
    assert path is not None
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return frozenset(name for name in found if path_of(name) is not None)
