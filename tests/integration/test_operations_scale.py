"""Pages and commands read as much of Redis beside many jobs as beside few: what they cost does not grow with a backlog.

Counted in bytes, since times say little on a busy machine; bench/operations.py measures them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import click
import redis as redis_py
from click.testing import CliRunner
from flask.testing import FlaskClient

from bench.operations import commands, pages, words
from rqjobs import enqueue_many
from rqjobs.broker.rq_schema import key
from rqjobs.cli import cli
from rqjobs.dead_letters.index import sync
from tests.support.dashboard import webhook
from tests.support.hostile import kill

COMMANDS = ("health", "failed list", "failed list --reason boom", "failed groups", "doctor", "jobs show waiting")
STATES = ("waiting", "running", "delayed", "dead", "done")
PAGES = (
    "/", "/live", "/dead/", "/dead/?find=wh_5", "/jobs/waiting", "/webhooks/", "/metrics", "/health",
    *(f"/queues/webhooks?state={state}&page={page}" for state in STATES for page in (0, 9)),
    "/rq/0/data/queues.json", "/rq/0/data/workers.json", "/rq/0/data/job/waiting.json",
    *(f"/rq/0/data/jobs/webhooks/{registry}/50/{order}/9.json" for registry in ("queued", "failed")
      for order in ("asc", "dsc")),
)  # fmt: skip


def grow(redis: redis_py.Redis, *, waiting: int, dead: int) -> None:
    """So many more jobs, the dead ones copied from one."""
    first, *others = enqueue_many([webhook(number) for number in range(dead)])
    kill(first.id, first.origin, "ValueError: boom", redis)
    with redis.pipeline(transaction=False) as pipeline:
        for job in others:
            pipeline.copy(key("job", first.id), key("job", job.id), replace=True)
            pipeline.copy(key("results", first.id), key("results", job.id))
            pipeline.zadd(key("failed", "webhooks"), {job.id: redis.zscore(key("failed", "webhooks"), first.id)})
        pipeline.execute()
    redis.ltrim(key("queue", "webhooks"), 0, -len(others) - 1)
    enqueue_many([webhook(number) for number in range(waiting)])
    sync(["webhooks"], redis)  # as workers do


def sent(redis: redis_py.Redis) -> int:
    """The bytes that Redis has sent."""
    return int(redis.info("stats")["total_net_output_bytes"])


def costs(client: FlaskClient, redis: redis_py.Redis) -> Iterator[tuple[str, int]]:
    """What each page and command reads."""
    for path in PAGES:
        client.get(path)  # groups are remembered
        before = sent(redis)
        assert client.get(path).status_code == 200, path
        yield path, sent(redis) - before
    for command in COMMANDS:
        before = sent(redis)
        outcome = CliRunner().invoke(cli, command.split(), standalone_mode=False, catch_exceptions=False)
        assert outcome.output, command
        yield command, sent(redis) - before


def test_nothing_reads_more_beside_many_jobs(client: FlaskClient, redis: redis_py.Redis) -> None:
    enqueue_many([(webhook(), {"job_id": "waiting"})])
    grow(redis, waiting=3_000, dead=2_100)
    few = dict(costs(client, redis))
    grow(redis, waiting=12_000, dead=6_000)
    many = dict(costs(client, redis))
    assert {what: (few[what], many[what]) for what in few if many[what] > few[what] * 1.2 + 4_000} == {}


def test_the_benchmark_forgets_no_page_and_no_command(client: FlaskClient) -> None:
    ids = SimpleNamespace(
        dead=itertools.repeat("id"),
        batch="id",
        group="id",
        bulk_requeue="id",
        waiting=lambda: "id",
        delayed=lambda: "id",
    )
    adapter = client.application.url_map.bind("localhost")
    asked = {adapter.match(path.partition("?")[0], query_args="")[0] for _, path in pages(client.application, ids)}
    read = {rule.endpoint for rule in client.application.url_map.iter_rules() if "GET" in (rule.methods or ())}
    assert {endpoint for endpoint in read - asked if not endpoint.endswith("static")} == set()
    every = list(commands(cli))
    assert {"health", "failed list", "email suppressions add"} <= set(every)
    for path in every:
        context, typed = click.Context(cli), words(path, ids)
        command: click.Command = cli
        while isinstance(command, click.Group):
            found = command.get_command(context, typed.pop(0))
            assert found is not None
            command = found
        command.make_context(path, typed, parent=context)  # fails with what is missing
