"""Text from outside controls no terminal: not in a command's output, not in a log, whatever a record holds."""

from __future__ import annotations

import ast
import json
import logging
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import redis as redis_py
from click.testing import CliRunner
from sqlalchemy import insert

import rqjobs.cli
from rqjobs import WebhookJob, enqueue
from rqjobs.cli import main
from rqjobs.cli.output import bold, coloured, say
from rqjobs.config.logs import JsonFormatter, TextFormatter
from rqjobs.database import get_engine
from rqjobs.database.webhook_deliveries import Delivery, write
from rqjobs.database.webhook_tables import endpoints
from tests.support.hostile import kill

HOSTILE = "\x1b]0;PWNED\x07\x1b[2Ja\rb\x08c\x9b31m\u202edl\u2066e\x7f"
NAME = "shop" + HOSTILE
COMMANDS = (
    "failed list", "failed list --json", "failed groups", "failed groups --json", "failed show ID",
    "failed show ID --json",
    "failed requeue --all --dry-run", "failed requeue --all --dry-run --json", "failed requeue --all",
    "failed purge --all",
    "jobs show ID", "jobs show ID --json", "jobs show FORGED", "jobs stop FORGED", "health", "health --json",
    "webhooks endpoints", "webhooks endpoints --json", "webhooks deliveries", "webhooks deliveries --json",
    "webhooks show j1", "webhooks show j1 --json", "webhooks show FORGED", "webhooks replay j1 --dry-run",
    "webhooks replay --all --dry-run", "webhooks replay --all --dry-run --json", "webhooks destinations",
    "webhooks disable NAME", "webhooks disable FORGED", "webhooks enable NAME", "webhooks enable FORGED",
    "webhooks rotate NAME", "webhooks remove NAME", "outbox status", "exports list", "FORGED",
    "failed list --queue FORGED",
)  # fmt: skip


def run(arguments: list[str]) -> tuple[str, int]:
    """What the command writes to a terminal, both streams, and its exit code; styles are kept."""
    runner = CliRunner()
    with runner.isolation(color=True) as (_out, _err, output):
        try:
            main(arguments)
        except SystemExit as ended:
            code = ended.code
        sys.stdout.flush()
        sys.stderr.flush()
        return output.getvalue().decode(), int(code or 0)


def plant(redis: redis_py.Redis) -> str:
    job = enqueue(WebhookJob(webhook_id="w", event="a.b", url="https://a.example/", payload={"note": HOSTILE}))
    kill(job.id, "webhooks", f"ValueError: {HOSTILE}", redis)
    redis.hset(f"rq:job:{job.id}", mapping={"description": HOSTILE, "meta": json.dumps({HOSTILE: HOSTILE})})
    redis.restore(f"rq:job:{HOSTILE}", 0, redis.dump(f"rq:job:{job.id}"))
    redis.zadd("rq:failed:webhooks", {HOSTILE: time.time() + 60})
    sent = json.dumps({"payload": {"note": HOSTILE}}, ensure_ascii=False)
    row = Delivery("j1", NAME, HOSTILE, 1, int(time.time() * 1000), 5.0, 500, "dead", HOSTILE, HOSTILE, sent)
    forged = row._replace(job_id=HOSTILE)
    write(get_engine(), [row, forged], [], timedelta(days=5))
    with get_engine().begin() as connection:
        values = {"url": "https://a.example/" + HOSTILE, "url_key": "x", "events": [HOSTILE], "created_ms": 0}
        connection.execute(insert(endpoints).values(name=NAME, enabled=False, reason=HOSTILE, **values))
    return job.id


def test_no_command_prints_terminal_control_characters(redis: redis_py.Redis) -> None:
    words = {"ID": plant(redis), "FORGED": HOSTILE, "NAME": NAME}
    for command in COMMANDS:
        output, code = run([words.get(word, word) for word in command.split()])
        plain = output.replace("\x1b[1m", "").replace("\x1b[0m", "").replace("\n", "")
        assert plain.isprintable(), (command, ascii(output))
        assert output, command
        if command.endswith("--json") and not code:
            json.loads(output)


def test_a_traceback_is_printable_too(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.excepthook
    try:
        run(["--version"])
        sys.excepthook(ValueError, ValueError(HOSTILE), None)
    finally:
        sys.excepthook = before
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert said.replace("\n", "").isprintable()


def test_our_own_styles_reach_a_terminal() -> None:
    with CliRunner().isolation(color=True) as (_out, _err, output):
        say(f"{bold('head')} {coloured('bad', 'red', strong=True)} \x1b[31mforged")
        assert output.getvalue() == b"\x1b[1mhead\x1b[0m \x1b[31m\x1b[1mbad\x1b[0m \\x1b[31mforged\n"


def test_every_command_prints_through_the_one_place() -> None:
    folder = Path(rqjobs.cli.__file__).parent
    for file in folder.glob("*.py"):
        if file.name in ("output.py", "completion.py"):  # the place itself; a script of click's, without foreign text
            continue
        calls = [ast.unparse(node.func) for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
        assert not {"click.echo", "click.secho", "print", "sys.stdout.write"}.intersection(calls), file


def record(**fields: object) -> logging.LogRecord:
    made = logging.LogRecord("rqjobs", logging.INFO, __file__, 1, "job failed " + HOSTILE, None, None)
    made.fields = fields
    return made


def test_a_log_line_is_one_printable_line() -> None:
    line = TextFormatter().format(record(id=HOSTILE, error=f"a b\n{HOSTILE}", queue="webhooks"))
    assert line.isprintable()
    assert "queue=webhooks" in line


def test_a_traceback_in_the_log_is_printable() -> None:
    made = record(id="x")
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        made.exc_info = sys.exc_info()
    line = TextFormatter().format(made)
    assert "\nTraceback" in line
    assert line.replace("\n", "").isprintable()


def test_a_json_log_line_is_printable_and_has_the_same_meaning() -> None:
    line = JsonFormatter().format(record(id=HOSTILE))
    assert line.isprintable()
    assert json.loads(line)["id"] == HOSTILE
