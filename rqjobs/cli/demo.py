"""``rqjobs demo``: runs jobs of all five kinds against test doubles on loopback."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rqjobs.broker.states import State, state_of
from rqjobs.cli.output import bold, print_table, say
from rqjobs.errors import RQJobsError

if TYPE_CHECKING:
    from rqjobs.broker.rq_types import Job
    from rqjobs.jobs import JobModel, WebhookJob
    from rqjobs.testing.sandbox.world import World

_LIMIT = 110.0  # seconds; it takes ten, and a minute on a busy machine
_SCANS = 20


class DemoFailed(RQJobsError):
    """A job of the demo did not end as expected."""


@dataclass(frozen=True)
class Act:
    """One job of the demo, and its expected end."""

    job: JobModel
    story: str
    expected: State = State.DONE
    """The state in which it must end."""


@click.command()
def demo() -> None:
    """Run jobs of all five kinds on loopback, and show the results.

    Starts a Redis, test doubles of all services, and a worker; takes less than a minute.
    """
    from rqjobs.enqueueing import enqueue_many
    from rqjobs.monitoring.queue_health import queue_health, state_table
    from rqjobs.testing.sandbox.world import play

    with play() as world:
        say(f"{bold('1.')} on loopback: an embedded Redis, a customer's webhook receiver, ManyChat, a mail server")
        acts = _acts(world)
        jobs = enqueue_many(act.job for act in acts)
        say(f"{bold('2.')} {len(jobs)} jobs enqueued in one round trip; a worker starts: {bold('rqjobs worker')}")
        with _worker(world.folder):
            _wait(jobs)
        say(f"{bold('3.')} what happened\n")
        _tell(acts, jobs)
        say(f"\n{bold('4.')} the queues, as {bold('rqjobs health')} shows them\n")
        head, rows = state_table(queue_health())
        print_table(head, rows, right=head[1:])
        _check(acts, jobs, world)
    say(
        f"\n{bold('Next')}\n"
        "  rqjobs dev                     Redis, worker and dashboard in one terminal; in another:\n"
        '  rqjobs enqueue webhook \'{"webhookId": "wh_1", "event": "hello", "url": "https://...", '
        '"payload": {}}\'\n'
        "  rqjobs failed list             what died, and why;  rqjobs failed requeue ID  runs it again\n"
        "  README.md                      the same from Python, Flask, Django and FastAPI"
    )


def _acts(world: World) -> list[Act]:
    from rqjobs.jobs import DataExportJob, EmailJob, ManyChatSyncJob, QRAnalyticsJob, WebhookJob

    def webhook(path: str) -> WebhookJob:
        return WebhookJob(
            webhook_id=f"wh_{path.split('/')[1]}",
            event="booking.created",
            url=world.receiver.url + path,
            payload={"booking": 4711, "guest": "Ada"},
            headers={"X-API-Key": "demo"},
        )

    contact = {"email": "ada@example.com", "first_name": "Ada", "add_tags": ["vip"]}
    booking = {"name": "Ada", "service_type": "Consultation", "start_time": "2027-03-01T10:00:00+00:00"}
    scans = [
        Act(
            QRAnalyticsJob(
                qr_code_id="table-7", event="scan", data={"event_id": f"scan-{number % 16}", "ip": "192.0.2.1"}
            ),
            f"{_SCANS} scans, four of them sent twice: counted once each",
        )
        for number in range(_SCANS)
    ]
    return [
        Act(webhook("/ok"), "signed; the receiver verified the signature"),
        Act(webhook("/flaky/2"), "failed twice, came back after 2 s and 4 s"),
        Act(webhook("/gone"), "the endpoint is gone: dead at once, kept as a dead letter", State.DEAD),
        Act(
            ManyChatSyncJob(type="contact", action="create", tool_id="shop_1", data=contact),
            "found or created by address, then tagged",
        ),
        Act(
            EmailJob(to="Ada <ada@example.com>", subject="Your booking", template="booking-confirmation", data=booking),
            "from a built-in template, by SMTP, once",
        ),
        Act(
            DataExportJob(user_id="shop_1", export_type="csv", data_type="contacts", filters={"tag": "vip"}),
            "streamed from the app's table: this user's rows, no live formula",
        ),
        *scans,
    ]


@contextmanager
def _worker(folder: Path) -> Iterator[None]:
    log = folder / "worker.log"
    with log.open("w") as file:
        worker = subprocess.Popen([sys.executable, "-m", "rqjobs", "worker"], stdout=file, stderr=file)
        try:
            yield
        except DemoFailed as error:
            raise DemoFailed(f"{error}\nthe worker's log:\n{log.read_text()[-3000:]}") from error
        finally:
            worker.terminate()
            worker.wait(30)


def _wait(jobs: list[Job]) -> None:
    deadline = time.monotonic() + _LIMIT
    while any(state_of(job.get_status()) not in (State.DONE, State.DEAD) for job in jobs):
        if time.monotonic() > deadline:
            raise DemoFailed("not all jobs ended in time")
        time.sleep(0.05)


def _tell(acts: list[Act], jobs: list[Job]) -> None:
    from rqjobs.broker.attempts import read_history
    from rqjobs.broker.connection import get_connection
    from rqjobs.broker.rq_schema import fetch_job

    rows = []
    told: set[str] = set()
    for act, enqueued in zip(acts, jobs, strict=True):
        if act.story in told:
            continue
        told.add(act.story)
        job = fetch_job(enqueued.id, get_connection())
        history = read_history(job)
        ended = history[-1].ended_at
        took = ended - job.created_at if ended else None
        outcome = history[-1].error or _shortened(job.return_value())
        rows.append((job.description, len(history), took, state_of(job.get_status()), outcome, act.story))
    print_table(("job", "runs", "after", "state", "result or error", "what it shows"), rows, right=("runs", "after"))


def _shortened(result: Any) -> str:
    """Returns a result as text, cut to 60 characters."""
    if isinstance(result, dict):
        return ", ".join(f"{key} {value}" for key, value in result.items() if isinstance(value, str | int | float))[:60]
    return "" if result is None else str(result)[:60]


def _check(acts: list[Act], jobs: list[Job], world: World) -> None:
    """Raises DemoFailed if a job did not end as expected."""
    for act, job in zip(acts, jobs, strict=True):
        if (state := state_of(job.get_status())) is not act.expected:
            raise DemoFailed(f"{job.description} ended as {state}, not {act.expected}")
    if not all(request.verified for request in world.receiver.received):
        raise DemoFailed("the receiver could not verify a signature")
    if world.manychat.account.call("GET", "page/getTags", {}) == []:
        raise DemoFailed("ManyChat has no tag")
