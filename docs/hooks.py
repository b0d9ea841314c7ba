"""What the site does with the pages, which are to be read in the repository as well."""  # noqa: INP001

import re
from pathlib import Path
from typing import Any

_INCLUDE = re.compile(r"<!-- include (\S+) -->")
_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page: files are included, and commands stand without a prompt, to be copied."""
    return _CONSOLE.sub(_without_prompts, _INCLUDE.sub(_file, markdown))


def _file(match: re.Match[str]) -> str:
    text = (Path(__file__).parent.parent / match[1]).read_text()
    return f'```ini title="{match[1]}"\n{text.rstrip()}\n```'


def _without_prompts(block: re.Match[str]) -> str:
    lines = block[1].splitlines()
    if not all(
        line.startswith("$ ") or before.endswith("\\") for before, line in zip(["", *lines], lines, strict=False)
    ):
        return block[0]  # with output: the whole is to be read, not to be copied
    return "\n".join(["```bash", *(line.removeprefix("$ ") for line in lines), "```"])


def on_page_content(html: str, **_: Any) -> str:
    """Called by mkdocs for each page: docstrings name things as ``:func:`enqueue```; the site shows the name alone."""
    return re.sub(r":(?:func|class|mod|meth):(?=<code)", "", html)
