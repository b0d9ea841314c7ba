"""The documentation: every Python block runs, every command has the options shown, every link leads somewhere."""

import html
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from rqjobs.cli import cli
from rqjobs.testing import environment
from tests.support.workers import ROOT

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *(ROOT / "examples").rglob("README.md"), ROOT / "deploy" / "README.md"]
BLOCKS = {page: re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE) for page in PAGES}
_SHELL_LINE = r"^\$ (?:[A-Z_]+=\S+ )?(?:flask --app app |python manage\.py )?(rqjobs .*)$"
COMMANDS = sorted({
    line.split("#")[0].strip()
    for page in [*PAGES, ROOT / "README.md"]
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    for line in re.findall(_SHELL_LINE, block, re.MULTILINE)
})  # fmt: skip


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCKS[page]], ids=lambda page: page.stem)
def test_every_python_block_runs(page, redis, redis_url, only_our_queues, monkeypatch):
    monkeypatch.setattr("rqjobs.wait_for_result", lambda job, timeout: job.id)  # no worker runs here
    with environment(REDIS_URL=redis_url):
        namespace = {"__name__": "docs_example"}
        sys.modules["docs_example"] = type(sys)("docs_example")
        sys.modules["docs_example"].__dict__.update(namespace)
        namespace = sys.modules["docs_example"].__dict__
        for block in BLOCKS[page]:
            exec(compile(block, str(page), "exec"), namespace)
        del sys.modules["docs_example"]


def test_the_test_that_the_page_shows(tmp_path):
    (block,) = [block for block in BLOCKS[DOCS / "testing.md"] if "def test_" in block]
    (tmp_path / "test_docs.py").write_text(block)
    from importlib.metadata import entry_points

    plugin = [] if "rqjobs" in entry_points(group="pytest11").names else ["-p", "rqjobs.testing.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", *plugin, "test_docs.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_exists_with_its_options(line):
    words = shlex.split(line.split(" | ")[0].split(" < ")[0])[1:]
    group = cli
    while isinstance(group, click.Group):
        name, *words = words or ["--help"]
        if name == "--help":
            return
        group = group.get_command(click.Context(cli), name)
        assert group, f"{line}: there is no {name}"
    words = ["0123456789ab" if word == "GROUP" else word for word in words]
    group.make_context(group.name, words)


def test_no_link_outside_the_docs_is_dead():
    """mkdocs checks the links between pages; here are those of files that it does not read."""
    for page in [ROOT / "README.md", *(ROOT / "examples").rglob("README.md"), ROOT / "deploy" / "README.md"]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page}: {target}"
    for page in PAGES:
        for path in re.findall(r"`((?:examples|deploy)/[a-z_]+)/?`", page.read_text()):
            assert (ROOT / path).exists(), f"{page}: {path}"


def test_files_that_pages_name_exist():
    """Documents go stale first where they name files."""
    packages = "|".join(path.parent.name for path in (ROOT / "rqjobs").glob("*/__init__.py"))
    for page in [*DOCS.rglob("*.md"), ROOT / "README.md"]:
        for name in re.findall(rf"`(?:rqjobs/)?((?:{packages})/[a-z_0-9/]+\.(?:py|lua))`", page.read_text()):
            assert (ROOT / "rqjobs" / name).exists(), f"{page.name}: {name}"


def test_the_map_lists_every_package():
    rows = re.findall(r"^\| `([a-z_]+)/` \|", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(path.parent.name for path in (ROOT / "rqjobs").glob("*/__init__.py"))


def test_the_site_builds_without_a_warning(tmp_path):
    command = [str(Path(sys.executable).parent / "mkdocs"), "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    for page in DOCS.glob("*.md"):
        for example in re.findall(r"examples/\w+/[\w/]+\.py", page.read_text()):
            built = (tmp_path / page.stem / "index.html").read_text()
            assert (ROOT / example).read_text().strip() in html.unescape(re.sub(r"<[^>]+>", "", built)), example


_SHOWN = re.compile(r"<!-- (examples/\S+) -->\n```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHOWN = [(page, path, shown) for page in PAGES for path, shown in _SHOWN.findall(page.read_text())]


@pytest.mark.parametrize(("page", "path", "shown"), SHOWN, ids=[path for _, path, _ in SHOWN])
def test_a_file_that_a_page_shows_is_the_file_that_the_tests_run(page, path, shown):
    assert shown == (ROOT / path).read_text(), (
        f"{page.name} shows another text than {path}: copy the file into the page"
    )


def test_pages_are_complete_in_the_repository_and_commands_are_copied_without_the_prompt():
    """In the repository nothing includes files; the site's copy button took the prompts along."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    assert len(SHOWN) >= 6
    for page in PAGES:
        assert "--8<--" not in page.read_text(), page
    text = hooks.on_page_markdown("```console\n$ rqjobs health\n$ rqjobs doctor\n```\n\n<!-- include .env -->")
    assert text.startswith("```bash\nrqjobs health\nrqjobs doctor\n```")
    assert "REDIS_URL" in text
    text = hooks.on_page_markdown("```console\n$ rqjobs health\nhealthy\n$ rqjobs doctor\n```")
    assert text == "```bash\nrqjobs health\n```\n\n```text\nhealthy\n```\n\n```bash\nrqjobs doctor\n```"
