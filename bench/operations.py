"""The dashboard and the command line: what each page and each command costs beside ten jobs, and beside very many.

Pages are asked for over HTTP; a command's time is its own work, once its modules are loaded.

Both are walked, from the URL map and the tree of commands: one that is new is measured, or stops this until it is told
what to ask of it. ``python -m bench.operations`` takes two minutes and a gigabyte; ``... 10000 1000`` does not.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import click
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import text

from bench.systems import show
from rqjobs import EmailJob, QRAnalyticsJob, WebhookJob, enqueue, enqueue_batch, enqueue_many, schedules
from rqjobs.broker import keys
from rqjobs.broker.connection import get_connection
from rqjobs.broker.embedded import stop_server
from rqjobs.broker.rq_schema import key
from rqjobs.cli import cli
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.dead_letters import bulk_requeue
from rqjobs.dead_letters import groups as failure_groups
from rqjobs.monitoring.http_server import LimitedServer
from rqjobs.web import create_app

TIMES, GOAL = 5, 100.0
FEW = (10, 30)
LONG = {
    "completion", "dashboard", "demo", "dev", "outbox relay", "sandbox mail", "sandbox manychat", "sandbox webhooks",
    "worker",
}  # fmt: skip
"""Commands that go on until they are ended, or whose output is the shell's own."""
QUERIES = ("/queues/webhooks?state={}&page=9", "/dead/?find={}", "/webhooks/?outcome={}", "/analytics/?code={}")
ASKED = (("waiting", "running", "delayed", "dead", "done"), ("wh_7", "nothing"), ("dead", "done"), ("table-7",))
"""More questions to some pages."""
FORMS: dict[str, Callable[[Jobs], list[str]]] = {
    "failed requeue --dry-run --all": lambda _jobs: ["--all"],
    "failed requeue --dry-run --group ALL": lambda jobs: [jobs.group],
    "failed requeue --dry-run --reason ALL": lambda _jobs: ["loopback"],
    "failed requeue --rate 10000 --group OF-THREE": lambda jobs: [next(jobs.small)],
    "failed requeue --reason OF-NONE": lambda _jobs: ["nothing"],
    "failed purge --group OF-THREE": lambda jobs: [next(jobs.small)],
    "failed purge --reason OF-NONE": lambda _jobs: ["nothing"],
}
"""More to type after some commands. The last word stands for what is typed."""


def webhook(number: int, host: int = 1) -> WebhookJob:
    """One whose destination is refused, so that it dies at once when it runs."""
    url = f"http://127.0.0.{host}/in"
    return WebhookJob(webhook_id=f"wh_{number}", event="qr.scanned", url=url, payload={"n": number})


class Jobs:
    """So many jobs, and ids of them for those who ask for one."""

    def __init__(self, waiting: int, dead: int) -> None:
        self.redis = get_connection()
        self.redis.flushall()
        first, *_ = enqueue_many([webhook(0), *(webhook(n, host=2 + n // 3) for n in range(6 * (TIMES + 1)))])
        subprocess.run([Path(sys.executable).with_name("rqjobs"), "worker", "--burst"], check=True, capture_output=True)
        score = self.redis.zscore(key("failed", "webhooks"), first.id) or 0
        fingerprint = self.redis.zscore(keys.dead_fingerprints("webhooks"), first.id) or 0
        reason = self.redis.zscore(keys.dead_reasons("webhooks"), first.id) or 0
        ids = [f"dead-{number}" for number in range(dead)]
        for start in range(0, dead, 5_000):
            with self.redis.pipeline(transaction=False) as pipeline:
                for job_id in ids[start : start + 5_000]:
                    pipeline.copy(key("job", first.id), key("job", job_id))
                    pipeline.copy(key("results", first.id), key("results", job_id))
                    pipeline.zadd(key("failed", "webhooks"), {job_id: score - 1})
                    pipeline.zadd(keys.dead_fingerprints("webhooks"), {job_id: fingerprint})
                    pipeline.zadd(keys.dead_reasons("webhooks"), {job_id: reason})
                pipeline.execute()
        self._log(first.id, dead)
        for start in range(0, waiting, 10_000):
            enqueue_many([webhook(number) for number in range(start, min(waiting, start + 10_000))])
        self.dead = iter(ids)
        (group,) = failure_groups.look().groups
        self.group = group.fingerprint.id
        self.small = iter(
            [
                part.fingerprint.id
                for part in (failure_groups.find(group.fingerprint.id) or group).parts
                if part.count == 3
            ]
        )
        self.batch = enqueue_batch([webhook(1)]).id
        self.bulk_requeue = bulk_requeue.start(self.group, "bench", "dry-run").id

    @staticmethod
    def _log(job_id: str, dead: int) -> None:
        """Three attempts of each in the log of deliveries."""
        columns = "endpoint, event, attempt, duration_ms, outcome, error, response, job"
        with get_engine().begin() as connection:
            connection.execute(text("DELETE FROM rqjobs_webhook_deliveries WHERE job_id <> :id"), {"id": job_id})
            connection.execute(
                text(
                    f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {3 * dead - 1}) "
                    f"INSERT INTO rqjobs_webhook_deliveries (job_id, at_ms, {columns}) "
                    f"SELECT 'dead-' || (i / 3), at_ms - i, {columns} FROM n, rqjobs_webhook_deliveries AS d "
                    "WHERE d.job_id = :id"
                ),
                {"id": job_id},
            )

    def waiting(self) -> str:
        """One that waits behind all others."""
        return enqueue(webhook(1)).id

    def delayed(self) -> str:
        """One whose time has not come."""
        return enqueue(EmailJob(to="a@b.example", subject="s", template="welcome", data={}), delay="1h").id


def pages(app: Flask, jobs: Jobs) -> Iterator[tuple[str, str]]:
    """Every page by its rule, and an address of it, from the URL map."""
    values = {
        "name": "webhooks", "job_id": next(jobs.dead), "group_id": jobs.group, "bulk_id": jobs.bulk_requeue, "page": 9,
        "batch_id": jobs.batch,
        "queue_name": "webhooks", "instance_number": 0, "registry_name": "failed", "per_page": 50, "order": "asc",
        "filename": "",
    }  # fmt: skip
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        if "GET" in (rule.methods or ()) and not rule.endpoint.endswith("static"):
            asked = {name: values[name] for name in rule.arguments - set(rule.defaults or {})}
            yield rule.rule, adapter.build(rule.endpoint, asked)
    for query, words in zip(QUERIES, ASKED, strict=True):
        yield from ((query.format(word),) * 2 for word in words)


def commands(group: click.Group, path: str = "") -> Iterator[str]:
    """Every command, from the tree."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = f"{path} {name}".strip()
        if isinstance(command, click.Group):
            yield from commands(command, inner)
        elif inner not in LONG:
            yield inner


def words(command: str, jobs: Jobs) -> list[str]:
    """What is typed after ``command``, anew for each run of it."""
    endpoint = "http://127.0.0.1/in"
    typed: dict[str, Callable[[], list[str]]] = {
        "enqueue": lambda: ["webhook", json.dumps({"webhookId": "w", "event": "e", "url": endpoint, "payload": {}})],
        "pause": lambda: ["email"],
        "resume": lambda: ["email"],
        "jobs show": lambda: [jobs.waiting()],
        "jobs run-now": lambda: [jobs.delayed()],
        "jobs stop": lambda: [next(jobs.dead)],
        "jobs delete": lambda: [jobs.waiting()],
        "schedules add": lambda: ["weekly", *typed["enqueue"](), "--cron", "0 7 * * 1"],
        **{f"schedules {each}": _nightly for each in ("show", "pause", "resume", "run-now", "remove")},
        **{f"batches {each}": lambda: [enqueue_batch([webhook(1)]).id] for each in ("show", "cancel", "requeue-dead")},
        "failed list": lambda: ["--reason", "nothing"],
        "failed show": lambda: [next(jobs.dead)],
        "failed requeue": lambda: [next(jobs.dead)],
        "failed purge": lambda: [next(jobs.dead)],
        "webhooks add": lambda: ["shop", "https://shop.example/hooks"],
        "webhooks rotate": lambda: ["shop"],
        "webhooks remove": lambda: ["shop"],
        "webhooks enable": lambda: [endpoint],
        "webhooks disable": lambda: [endpoint],
        "webhooks show": lambda: ["dead-1"],
        "webhooks replay": lambda: ["dead-1", "--dry-run"],
        "exports link": lambda: ["none"],
        "email preview": lambda: ["welcome"],
        "email suppressions add": lambda: ["ada@example.com"],
        "email suppressions lift": lambda: ["ada@example.com"],
        "analytics purge": lambda: ["--older-than", "400d"],
    }
    return command.split() + typed.get(command, list)()


def _nightly() -> list[str]:
    """The name of a schedule that exists."""
    schedules.add("nightly", QRAnalyticsJob(qr_code_id="c", event="scan", data={}), cron="0 3 * * *")
    return ["nightly"]


def run(command: str, jobs: Jobs) -> float:
    """Milliseconds of one run."""
    line = [*command.split()[:-1], *FORMS[command](jobs)] if command in FORMS else words(command, jobs)
    started = time.perf_counter()
    done = CliRunner().invoke(cli, line)
    took = (time.perf_counter() - started) * 1000
    if done.exit_code == 2 and isinstance(done.exception, SystemExit):
        sys.exit(f"bench/operations.py does not know what to type after {command!r}: {done.output}")
    return took


def measure(jobs: Jobs) -> dict[str, float]:
    """The median of each, in milliseconds."""
    app = create_app(let_in=lambda: True)
    server = LimitedServer(app, "127.0.0.1", 0, threads=16)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = {}
    for rule, path in pages(app, jobs):
        times = []
        for _ in range(TIMES + 1):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
            started = time.perf_counter()
            connection.request("GET", path)
            status = connection.getresponse().status
            times.append((time.perf_counter() - started) * 1000)
            connection.close()
            if status >= 400 and path != "/login":
                sys.exit(f"bench/operations.py: {path} answers {status}")
        found[rule] = median(times[1:])
    server.server_close()
    for command in (*commands(cli), *FORMS):
        found[f"rqjobs {command}"] = median([run(command, jobs) for _ in range(TIMES + 1)][1:])
    return found


def main() -> int:
    """Measures twice. 1 if anything took longer than it may."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("waiting", nargs="?", type=int, default=1_000_000)
    options.add_argument("dead", nargs="?", type=int, default=100_000)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        os.environ |= {"REDIS_URL": f"embedded:{name}/redis", "DATABASE_URL": f"sqlite:///{name}/bench.db"}
        os.environ |= {"RQJOBS_DATA": name, "EXPORT_URL": f"{name}/exports"}
        use_settings(None)
        try:
            few = measure(Jobs(*FEW))
            many = measure(Jobs(chosen.waiting, chosen.dead))
        finally:
            get_connection().close()
            stop_server(Path(name) / "redis")
    rows = [[what, f"{few[what]:.1f}", f"{many[what]:.1f}"] for what in many]
    heads = [f"{waiting:,} waiting, {dead:,} dead" for waiting, dead in (FEW, (chosen.waiting, chosen.dead))]
    show("Operations, ms", ["", *heads], rows)
    return int(max(many.values()) > GOAL)


if __name__ == "__main__":
    sys.exit(main())
