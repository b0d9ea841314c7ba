"""Docstrings name things as ``:func:`enqueue```; the site shows the name alone."""  # noqa: INP001

import re
from typing import Any


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return re.sub(r":(?:func|class|mod|meth):(?=<code)", "", html)
