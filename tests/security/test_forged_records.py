"""Forged fields of jobs of every kind: every page and command goes on, counted."""

from __future__ import annotations

import pytest
import redis as redis_py
from click.testing import CliRunner
from flask.testing import FlaskClient

from rqjobs import enqueue
from rqjobs.cli import cli
from tests.integration.test_unreadable_records import COMMANDS, PAGES
from tests.support.dashboard import webhook
from tests.support.hostile import kill

FIELDS = (
    "status", "created_at", "enqueued_at", "started_at", "ended_at", "last_heartbeat", "timeout", "result_ttl", "ttl",
    "failure_ttl", "description", "origin", "meta", "data", "worker_name", "retries_left", "retry_intervals",
    "group_id", "dependency_ids", "success_callback_name", "repeats_left", "worker_died", "signature", "needs",
)  # fmt: skip
VALUES: dict[str, bytes] = {
    "empty": b"", "not UTF-8": b"\xff\xfe", "nested": b"[" * 100_000, "NUL": b"a\0b", "line break": b"a\r\nX: y",
    "escape": b"\x1b]0;PWNED\x07", "negative": b"-99999999999999999999", "infinite": b"1e999",
}  # fmt: skip


def walk(redis: redis_py.Redis, client: FlaskClient) -> list[str]:
    """What ended with an error of its own, of every page and command."""
    broke = [page for page in PAGES if client.get(page, follow_redirects=True).status_code >= 500]
    for command in COMMANDS:
        done = CliRunner().invoke(cli, command)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            broke.append(" ".join(command))
        if "\x1b]0;" in done.output:
            broke.append(" ".join(command) + " (escape)")
    return broke


def test_forged_fields(redis: redis_py.Redis, client: FlaskClient, capsys: pytest.CaptureFixture[str]) -> None:
    broke: dict[str, list[str]] = {}
    tried = 0
    for value_name, value in VALUES.items():  # a job for each field, all at once
        for field in FIELDS:
            bad = enqueue(webhook())
            kill(bad.id, "webhooks", "ValueError: x", redis)
            redis.hset(bad.key, field, value)
            tried += 1
        if found := walk(redis, client):
            broke[value_name] = found
    assert broke == {}
    with capsys.disabled():
        print(f"\nforged fields of jobs: {tried} x {len(PAGES) + len(COMMANDS)} pages and commands, 0 open")
