"""Pages of HTML from the templates beside this file; what is filled in is escaped, so names from data stay names."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def render(template: str, **values: Any) -> str:
    """The page that a template makes of values. What is HTML itself must be `markupsafe.Markup`."""
    return _PAGES.get_template(template).render(values)
