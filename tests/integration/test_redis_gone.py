"""Redis goes away after it was reached: every public call raises RedisUnavailable, which names the fix."""

import asyncio
import inspect
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
import redis as redis_py
from redis import exceptions
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

import rqjobs
from rqjobs import QRAnalyticsJob, WebhookJob, aio, enqueueing, webhooks
from rqjobs.batches import create, records
from rqjobs.broker import attempts, client, holds, job_actions, results, rq_schema
from rqjobs.broker.connection import close_connection, get_connection
from rqjobs.broker.embedded import ensure_server, stop_server
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.dead_letters import bulk_requeue
from rqjobs.dead_letters import entries as dead_groups
from rqjobs.dead_letters import groups as failure_groups
from rqjobs.dead_letters import index as dead_index
from rqjobs.dead_letters import letters as dead_letters
from rqjobs.errors import RedisUnavailable
from rqjobs.monitoring import alerts, metrics, prometheus, queue_health, workers
from rqjobs.outbox import relay

SCAN = QRAnalyticsJob(qr_code_id="q", event="scan", data={})
HOOK = WebhookJob(webhook_id="wh_1", event="e", url="https://example.com", payload={})
MAIL = {"to": "ada@example.com", "subject": "s", "template": "welcome", "data": {}}
SYNC = {"type": "contact", "action": "update", "toolId": "t", "data": {"subscriberId": "1", "fields": {"a": 1}}}
EXPORT = {"userId": "u", "exportType": "csv", "dataType": "contacts"}
ALERT = alerts.Alert(kind="k", subject="s", text="t")
BRIEFLY = timedelta(seconds=1)


def _await(function, *args):
    return lambda **options: asyncio.run(function(*args, **options))


CALLS = {
    enqueueing.enqueue: lambda **o: enqueueing.enqueue(SCAN, **o),
    enqueueing.enqueue_many: lambda **o: enqueueing.enqueue_many([SCAN, (HOOK, {"delay": "1h"})], **o),
    enqueueing.enqueue_webhook: lambda **o: enqueueing.enqueue_webhook(HOOK, **o),
    enqueueing.enqueue_manychat_sync: lambda **o: enqueueing.enqueue_manychat_sync(SYNC, delay="1h", **o),
    enqueueing.enqueue_email: lambda **o: enqueueing.enqueue_email(MAIL, **o),
    enqueueing.enqueue_qr_analytics: lambda **o: enqueueing.enqueue_qr_analytics(SCAN, **o),
    enqueueing.enqueue_data_export: lambda **o: enqueueing.enqueue_data_export(EXPORT, **o),
    aio.aenqueue: _await(aio.aenqueue, SCAN),
    aio.aenqueue_many: _await(aio.aenqueue_many, [SCAN, SCAN]),
    aio.aenqueue_webhook: _await(aio.aenqueue_webhook, HOOK),
    aio.aenqueue_manychat_sync: _await(aio.aenqueue_manychat_sync, SYNC),
    aio.aenqueue_email: _await(aio.aenqueue_email, MAIL),
    aio.aenqueue_qr_analytics: _await(aio.aenqueue_qr_analytics, SCAN),
    aio.aenqueue_data_export: _await(aio.aenqueue_data_export, EXPORT),
    aio.aenqueue_batch: _await(aio.aenqueue_batch, [SCAN, SCAN]),
    aio.aenqueue_chain: _await(aio.aenqueue_chain, [SCAN, SCAN]),
    aio.await_batch: _await(aio.await_batch, "a"),
    create.enqueue_batch: lambda **o: create.enqueue_batch([SCAN, SCAN], **o),
    create.enqueue_chain: lambda **o: create.enqueue_chain([SCAN, SCAN], **o),
    records.get_batch: lambda **o: records.get_batch("a", **o),
    records.list_batches: records.list_batches,
    aio.await_result: _await(aio.await_result, "a"),
    aio.aqueue_health: _await(aio.aqueue_health),
    results.wait_for_result: lambda **o: results.wait_for_result("a", BRIEFLY, **o),
    queue_health.queue_health: queue_health.queue_health,
    queue_health.fullness: queue_health.fullness,
    queue_health.parked_destinations: queue_health.parked_destinations,
    queue_health.pause: lambda **o: queue_health.pause("email", **o),
    queue_health.resume: lambda **o: queue_health.resume("email", **o),
    dead_letters.dead_letters: lambda **o: list(dead_letters.dead_letters(**o)),
    dead_letters.dead_ids: lambda **o: list(dead_letters.dead_ids(**o)),
    dead_letters.count: dead_letters.count,
    dead_letters.dead_letter: lambda **o: dead_letters.dead_letter("a", **o),
    dead_letters.requeue: lambda **o: dead_letters.requeue(["a"], **o),
    dead_letters.purge: lambda **o: dead_letters.purge(["a"], **o),
    dead_letters.replace_payload: lambda **o: dead_letters.replace_payload("a", {}, **o),
    failure_groups.look: failure_groups.look,
    failure_groups.find: lambda **o: failure_groups.find("a", **o),
    dead_index.by_reason: lambda **o: dead_index.by_reason("a", **o),
    bulk_requeue.start: lambda **o: bulk_requeue.start("c", "t", "requeue", **o),
    bulk_requeue.recent: bulk_requeue.recent,
    bulk_requeue.find: lambda **o: bulk_requeue.find("a", **o),
    bulk_requeue.stop: lambda **o: bulk_requeue.stop("a", **o),
    workers.workers: workers.workers,
    holds.dependencies_away: holds.dependencies_away,
    holds.try_now: lambda **o: holds.try_now("email", **o),
    job_actions.run_now: lambda **o: job_actions.run_now("a", **o),
    job_actions.stop: lambda **o: job_actions.stop("a", **o),
    job_actions.delete: lambda **o: job_actions.delete("a", **o),
    alerts.raise_alert: lambda **o: alerts.raise_alert(ALERT, **o),
    relay.relay: relay.relay,
    webhooks.emit: lambda **o: webhooks.emit("e", {}, **o),
}
"""Each public function that takes a connection or not, called with one or without."""

WITH_A_CONNECTION = {
    metrics.totals: metrics.totals,
    metrics.redis_time: metrics.redis_time,
    metrics.last_hour: metrics.last_hour,
    prometheus.render: prometheus.render,
    dead_groups.read: lambda client: dead_groups.read(["a"], client),
    attempts.summarize: lambda client: attempts.summarize(["a"], client),
    rq_schema.fetch_job: lambda client: rq_schema.fetch_job("a", client),
}
"""Those that need one."""

MODULES = (aio, alerts, dead_groups, dead_letters, enqueueing, prometheus, failure_groups, workers, queue_health,
           attempts, create, metrics, records, relay, job_actions, bulk_requeue, results, webhooks)  # fmt: skip
NOT_CALLED = {alerts.check, metrics.record, metrics.write, bulk_requeue.run}
"""What only workers and pages call."""


@pytest.fixture
def folder(tmp_path, configure, monkeypatch):
    """A Redis of this test's own, in the environment; a retry does not wait."""
    monkeypatch.setattr(ExponentialBackoff, "compute", lambda *_: 0)
    folder = Path(tempfile.mkdtemp(prefix="rqjobs-gone-"))
    configure(REDIS_URL=f"unix://{ensure_server(folder)}")
    yield folder
    close_connection()
    stop_server(folder)
    shutil.rmtree(folder, ignore_errors=True)


def faults_of(calls):
    """The calls that do not raise what the documents state, and what they do instead."""
    found = {}
    for name, call in calls.items():
        try:
            found[name] = f"returned {call()!r}"
        except RedisUnavailable as error:
            if not error.fix or error.fix not in str(error):
                found[name] = f"names no fix: {error}"
        except Exception as error:
            found[name] = repr(error)
    return found


def calls_with(given):
    calls = {function.__qualname__: call for function, call in CALLS.items()}
    calls |= {f"{name} with a connection": _with(call, connection=given) for name, call in calls.items()
              if name != "aqueue_health"}  # fmt: skip
    for function, call in WITH_A_CONNECTION.items():
        calls[function.__qualname__] = lambda call=call: call(get_connection())
        if function is not rq_schema.fetch_job:
            calls[f"{function.__qualname__} with a connection"] = lambda call=call: call(given)
    return calls


def _with(call, **options):
    return lambda: call(**options)


def test_the_table_lists_every_public_function():
    wanted = {
        function
        for module in MODULES
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
        if {"connection", "options"} & inspect.signature(function).parameters.keys()
    }
    assert wanted - NOT_CALLED <= CALLS.keys() | WITH_A_CONNECTION.keys()
    names = {name.rpartition(".")[2] for name in rqjobs.__all__ if "enqueue" in name or "wait" in name}
    assert names <= {function.__name__ for function in CALLS}


def test_every_call_raises_it(folder):
    init_database(get_engine())
    webhooks.add_endpoint("shop", "https://example.com/hook")
    job = rqjobs.enqueue(SCAN)
    batch = rqjobs.enqueue_batch([SCAN])
    with get_engine().begin() as transaction:
        rqjobs.enqueue(SCAN, outbox=transaction)
    own = redis_py.Redis(unix_socket_path=str(folder / "redis.sock"), retry=Retry(NoBackoff(), 0))
    own.ping()
    stop_server(folder)
    calls = calls_with(own) | {"job.refresh": job.refresh, "read_history": lambda: attempts.read_history(job),
                               "wait_for_result of a job": lambda: rqjobs.wait_for_result(job)}  # fmt: skip
    calls |= {method.__qualname__: method for method in
              (batch.read, batch.wait, batch.cancel, batch.requeue_dead, batch.dead_ids)}  # fmt: skip
    assert faults_of(calls) == {}
    own.close()


def test_it_is_the_error_of_redis_py_as_well(folder):
    get_connection()
    stop_server(folder)
    with pytest.raises(exceptions.ConnectionError) as caught:
        rqjobs.queue_health()
    assert isinstance(caught.value, RedisUnavailable | ConnectionError)
    assert caught.value.url.startswith("unix://")


@pytest.mark.parametrize(
    ("settings", "error", "fix"),
    [
        ({"maxmemory": "1"}, exceptions.OutOfMemoryError, "Raise its maxmemory"),
        ({"min-replicas-to-write": "1"}, exceptions.ResponseError, "Start the replicas"),
        ({"replicaof": "127.0.0.1 1"}, exceptions.ReadOnlyError, "Name the primary"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"delay": "1h"}])
def test_a_redis_that_takes_no_jobs_is_named_with_the_fix(folder, settings, error, fix, options):
    server = get_connection()
    rqjobs.enqueue(SCAN, **options)
    if "replicaof" in settings:
        server.execute_command("REPLICAOF", *settings["replicaof"].split())
    else:
        server.config_set(*next(iter(settings.items())))
    with pytest.raises(RedisUnavailable, match=fix) as caught:
        rqjobs.enqueue(SCAN, **options)
    assert isinstance(caught.value, error)
    with pytest.raises(RedisUnavailable, match=fix):
        rqjobs.enqueue_many([SCAN] * 600, **options)


def test_a_refused_login_and_a_redis_that_starts():
    for error, fix in (
        (exceptions.AuthenticationError("WRONGPASS"), "Fix user and password"),
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), "Wait until it has"),
        (exceptions.TimeoutError("Timeout reading from socket"), "rqjobs doctor"),
        (redis_py.sentinel.MasterNotFoundError("No master found for 'm'"), "See that the Sentinels run"),
    ):
        found = client.unavailable(error, "redis://h")
        assert isinstance(found, type(error))
        assert fix in str(found)
    assert client.unavailable(exceptions.ResponseError("WRONGTYPE Operation"), "redis://h") is None


def test_the_command_line_reports_it_in_one_line(folder, workers):
    stop_server(folder)
    url = f"unix://{folder}/redis.sock"
    for command in (("failed", "list"), ("enqueue", "qr-analytics", '{"qrCodeId": "q", "event": "scan", "data": {}}')):
        done = workers.run(*command, REDIS_URL=url)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: Redis at unix://"), done.stderr
        assert len(done.stderr.splitlines()) == 1
