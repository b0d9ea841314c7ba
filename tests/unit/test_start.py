"""What starts fast, since it loads nothing that it does not need. Modules are counted, not milliseconds."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import rqjobs
from rqjobs.cli import cli

HEAVY = {"alembic", "asyncio", "flask", "jinja2", "opentelemetry", "pydantic", "redis", "requests", "rq", "sqlalchemy"}


def loaded(code: str, **environment: str) -> set[str]:
    """The heavy modules that a new process has loaded after ``code``."""
    code = f"import sys\ntry:\n    {code}\nfinally:\n    print('LOADED', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return HEAVY.intersection(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["completion", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    assert loaded(f"from rqjobs.cli import main; main({words})") == set()


def test_completing_a_command_loads_nothing_heavy() -> None:
    code = "from rqjobs.cli import main; main()"
    assert loaded(code, _RQJOBS_COMPLETE="bash_complete", COMP_WORDS="rqjobs fa", COMP_CWORD="1") == set()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded("import rqjobs; dir(rqjobs)") == set()
    assert loaded("from rqjobs import InvalidJob, exponential") == set()
    assert "asyncio" in loaded("from rqjobs import aenqueue")  # as the test can tell


def test_a_worker_loads_no_database_where_nothing_was_written(tmp_path: Path) -> None:
    file = tmp_path / "rqjobs.db"
    code = "import rqjobs.cli.worker, rqjobs.worker.engine; from rqjobs.relaying import Relay; Relay().tick()"
    options = {"DATABASE_URL": f"sqlite:///{file}", "REDIS_URL": "redis://127.0.0.1:1"}
    assert loaded(code, **options).isdisjoint({"alembic", "flask", "jinja2", "requests", "sqlalchemy"})
    file.touch()
    assert "sqlalchemy" in loaded(code, **options)


def test_every_public_name_is_where_type_checkers_see_it() -> None:
    tree = ast.parse(Path(rqjobs.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    seen = {
        name.name: getattr(importlib.import_module(node.module or ""), name.name)
        for node in imports
        if (node.module or "").startswith("rqjobs.")
        for name in node.names
    }
    assert {name: getattr(rqjobs, name) for name in rqjobs.__all__} == seen
    assert set(rqjobs.__all__) <= set(dir(rqjobs))
    with pytest.raises(AttributeError, match="no attribute 'enqueue_fax'"):
        rqjobs.enqueue_fax  # noqa: B018


def test_no_module_hides_a_public_name() -> None:
    # Importing rqjobs.x sets the attribute x of rqjobs.
    assert {module.name for module in pkgutil.iter_modules(rqjobs.__path__)}.isdisjoint(rqjobs.__all__)


def test_the_overview_says_what_each_command_says_of_itself() -> None:
    with click.Context(cli) as context:
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            assert command is not None
            assert [name, command.get_short_help_str(200)] in [
                line.split(maxsplit=1) for line in cli.get_help(context).splitlines() if line.strip()
            ]
