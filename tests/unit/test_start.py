"""What starts fast, since it loads nothing that it does not need. Modules are counted, not milliseconds."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import rqjobs
from rqjobs.cli import cli

HEAVY = {"alembic", "asyncio", "flask", "jinja2", "opentelemetry", "pydantic", "redis", "requests", "rq", "sqlalchemy"}


def loaded(code: str, **environment: str) -> set[str]:
    """The heavy modules that a new process has loaded after ``code``."""
    code = f"import sys\ntry:\n    {code.strip()}\nfinally:\n    print('LOADED', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return HEAVY.intersection(done.stdout.rpartition("LOADED")[2].split())


def every(command: click.Command, *path: str) -> Iterator[list[str]]:
    """The words of ``command`` and of all below it."""
    yield list(path)
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                if (below := command.get_command(context, name)) is not None:
                    yield from every(below, *path, name)


def test_no_help_needs_anything_heavy() -> None:
    helps = [["--version"], ["completion", "bash"], *([*words, "--help"] for words in every(cli))]
    assert len(helps) > 50
    code = f"""
    from rqjobs.cli import main
    for words in {helps}:
        try:
            main(words)
        except SystemExit as end:
            assert not end.code, words
    """
    assert loaded(code) == set()


@pytest.mark.parametrize("typed", ["rqjobs fa", "rqjobs failed re", "rqjobs worker --"])
def test_completion_needs_nothing_heavy(typed: str) -> None:
    code = "from rqjobs.cli import main; main()"
    words = str(len(typed.split()) - 1)
    assert loaded(code, _RQJOBS_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=words) == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded("import rqjobs; dir(rqjobs)") == set()
    assert loaded("from rqjobs import InvalidJob, exponential") == set()
    assert "asyncio" in loaded("from rqjobs import aenqueue")  # as the test can tell


def test_a_worker_loads_no_database_where_nothing_was_written(tmp_path: Path) -> None:
    file = tmp_path / "rqjobs.db"
    code = "import rqjobs.cli.worker, rqjobs.worker.run; from rqjobs.outbox.thread import Relay; Relay().tick()"
    options = {"DATABASE_URL": f"sqlite:///{file}", "REDIS_URL": "redis://127.0.0.1:1"}
    assert loaded(code, **options).isdisjoint({"alembic", "flask", "jinja2", "requests", "sqlalchemy"})
    file.touch()
    assert "sqlalchemy" in loaded(code, **options)


def test_every_public_name_is_where_type_checkers_see_it() -> None:
    tree = ast.parse(Path(rqjobs.__file__).read_text())
    imports = next(node for node in tree.body if isinstance(node, ast.If)).body  # under `if TYPE_CHECKING`
    seen = {
        name.name: getattr(importlib.import_module(node.module or ""), name.name)
        for node in imports
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert {name: getattr(rqjobs, name) for name in rqjobs.__all__} == seen
    assert set(rqjobs.__all__) <= set(dir(rqjobs))
    with pytest.raises(AttributeError, match="no attribute 'enqueue_fax'"):
        rqjobs.enqueue_fax  # noqa: B018


def test_no_module_hides_a_public_name() -> None:
    # Importing rqjobs.x sets the attribute x of rqjobs.
    assert {module.name for module in pkgutil.iter_modules(rqjobs.__path__)}.isdisjoint(rqjobs.__all__)


def test_the_overview_has_the_summary_of_each_command() -> None:
    with click.Context(cli) as context:
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            assert command is not None
            assert [name, command.get_short_help_str(200)] in [
                line.split(maxsplit=1) for line in cli.get_help(context).splitlines() if line.strip()
            ]


@pytest.mark.parametrize("set_by_app", ["enable", "disable"])
def test_an_import_leaves_garbage_collection_as_the_app_has_it(set_by_app: str) -> None:
    code = (
        f"import gc, rqjobs; gc.{set_by_app}(); rqjobs.WebhookJob; sys.exit(gc.isenabled() != {set_by_app == 'enable'})"
    )
    loaded(code)
