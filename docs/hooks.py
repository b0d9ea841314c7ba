"""Changes that mkdocs makes to the pages, which also have to be readable in a repository browser."""  # noqa: INP001

import re
from pathlib import Path
from typing import Any

_INCLUDE = re.compile(r"<!-- include (\S+) -->")
_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page: includes files, and separates commands, without prompts, from their output."""
    return _CONSOLE.sub(_without_prompts, _INCLUDE.sub(_file, markdown))


def _file(match: re.Match[str]) -> str:
    text = (Path(__file__).parent.parent / match[1]).read_text()
    return f'```ini title="{match[1]}"\n{text.rstrip()}\n```'


def _without_prompts(block: re.Match[str]) -> str:
    """Commands as a block of their own, so that the copy button copies what can be pasted; then their output."""
    parts: list[tuple[str, list[str]]] = []
    goes_on = False
    for line in block[1].splitlines():
        kind = "bash" if goes_on or line.startswith("$ ") else "text"
        goes_on = kind == "bash" and line.endswith("\\")
        if not parts or parts[-1][0] != kind:
            parts.append((kind, []))
        parts[-1][1].append(line.removeprefix("$ "))
    return "\n\n".join("\n".join([f"```{kind}", *lines, "```"]) for kind, lines in parts)


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for each page: shows ``:func:`enqueue``` of a docstring as the name alone."""
    return re.sub(r":(?:func|class|mod|meth):(?=<code)", "", html)
