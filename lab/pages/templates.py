"""Rendering of the templates in this folder. Values are escaped, because names in the user's data may contain HTML."""

import html
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lab.pages.contents import number, plain


def cell(text: str) -> str:
    """Escape a text for a cell of a Markdown table. Names of the user's data may contain Markdown and HTML."""
    return re.sub(r"[\\`*_(|]", r"\\\g<0>", html.escape(" ".join(text.splitlines()), quote=False))


def breakable(key: str) -> Markup:
    """Let a line break after each dot and underscore of a key."""
    return Markup(re.sub(r"[._]", r"\g<0><wbr>", html.escape(key)))


_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_PAGES.filters |= {"breakable": breakable, "cell": cell, "number": number, "plain": plain}


def render(template: str, **values: Any) -> str:
    """Render a template with values."""
    return _PAGES.get_template(template).render(values)
