"""``rqjobs demo``: the main job, end to end, with the outside world played on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rq.job import Job

from rqjobs.cli.output import cell, console, print_table
from rqjobs.connection import get_connection
from rqjobs.embedded import stop_server
from rqjobs.enqueue import enqueue_webhook
from rqjobs.errors import RQJobsError
from rqjobs.health import queue_health
from rqjobs.history import read_history
from rqjobs.layout import fetch_job
from rqjobs.sandbox.receiver import Receiver, signing_secret
from rqjobs.settings import use_settings

_LIMIT = 50.0  # seconds; the demo ends by itself within a minute


class DemoFailed(RQJobsError):
    """Something of the demo did not come out as promised."""


@dataclass(frozen=True)
class Act:
    """One job of the demo and what it should show."""

    job: Job
    story: str
    expected: str
    """The status that it must end with."""


@click.command()
def demo() -> None:
    """Play the main job end to end: a Redis, the outside world, real jobs, a worker; then say what happened."""
    out = console()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rqjobs-demo-")))
        receiver = stack.enter_context(Receiver(signing_secret()))
        stack.enter_context(_environment(folder, receiver))
        stack.callback(stop_server, folder / "redis")
        get_connection()
        out.print(
            "[bold]1.[/] an embedded Redis, and a customer's webhook receiver that checks signatures, on loopback"
        )
        acts = _enqueue(receiver)
        out.print(f"[bold]2.[/] {len(acts)} jobs enqueued; a worker starts: [bold]rqjobs worker[/]")
        stack.enter_context(_worker(folder))
        _wait(acts)
        out.print("[bold]3.[/] what happened\n")
        _tell(acts)
        out.print("\n[bold]4.[/] the queues: [bold]rqjobs health[/]\n")
        numbers = ("waiting", "active", "delayed", "failed", "completed")
        print_table(
            ("queue", *numbers), ((q.name, *(getattr(q, n) for n in numbers)) for q in queue_health()), right=numbers
        )
        _check(acts, receiver)
    out.print(
        "\n[bold]Next[/]\n"
        "  rqjobs worker                  run jobs; in another terminal:\n"
        '  rqjobs enqueue webhook \'{"webhookId": "wh_1", "event": "hello", "url": "https://...", '
        '"payload": {}}\'\n'
        "  rqjobs failed list             what died, and why;  rqjobs failed requeue ID  runs it again\n"
        "  README.md                      the same from Python, Flask, Django and FastAPI"
    )


@contextmanager
def _environment(folder: Path, receiver: Receiver) -> Iterator[None]:
    """The demo's settings, for this process and the worker: nothing of the user's is touched."""
    ours = {
        "REDIS_URL": f"embedded:{folder / 'redis'}",
        "DATABASE_URL": f"sqlite:///{folder / 'demo.db'}",
        "RQJOBS_DATA": str(folder),
        "WEBHOOK_SIGNING_SECRET": receiver.secret,
        "WEBHOOK_ALLOW": "127.0.0.1",
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    use_settings(None)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        use_settings(None)


def _enqueue(receiver: Receiver) -> list[Act]:
    def webhook(path: str) -> Job:
        return enqueue_webhook(
            {
                "webhook_id": f"wh_{path.split('/')[1]}",
                "event": "booking.created",
                "url": receiver.url + path,
                "payload": {"booking": 4711, "guest": "Ada"},
                "headers": {"X-API-Key": "demo"},
            }
        )

    return [
        Act(webhook("/ok"), "delivered, signed; the receiver verified it", "finished"),
        Act(webhook("/flaky/2"), "failed twice, came back after 2 s and 4 s, delivered", "finished"),
        Act(webhook("/gone"), "the endpoint is gone: dead at once, kept as a dead letter", "failed"),
    ]


@contextmanager
def _worker(folder: Path) -> Iterator[None]:
    log = folder / "worker.log"
    with log.open("w") as file:
        worker = subprocess.Popen([sys.executable, "-m", "rqjobs", "worker", "webhooks"], stdout=file, stderr=file)
        try:
            yield
        except DemoFailed as error:
            raise DemoFailed(f"{error}\nthe worker said:\n{log.read_text()[-3000:]}") from error
        finally:
            worker.terminate()
            worker.wait(30)


def _wait(acts: list[Act]) -> None:
    deadline = time.monotonic() + _LIMIT
    while any(act.job.get_status() not in ("finished", "failed") for act in acts):
        if time.monotonic() > deadline:
            raise DemoFailed("not all jobs ended in time")
        time.sleep(0.05)


def _tell(acts: list[Act]) -> None:
    rows = []
    for act in acts:
        job = fetch_job(act.job.id, get_connection())
        history = read_history(job)
        took = history[-1].ended_at - job.created_at if history[-1].ended_at else None
        last = history[-1].error or cell(job.return_value())
        rows.append((job.description, len(history), took, job.get_status().value, last, act.story))
    print_table(("job", "runs", "took", "status", "result or error", "what it shows"), rows, right=("runs", "took"))


def _check(acts: list[Act], receiver: Receiver) -> None:
    """The demo says only what came true."""
    for act in acts:
        if (status := act.job.get_status().value) != act.expected:
            raise DemoFailed(f"{act.job.description} ended as {status}, not {act.expected}")
    if not all(request.verified for request in receiver.received):
        raise DemoFailed("the receiver could not verify a signature")
