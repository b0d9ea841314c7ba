"""Enqueues jobs of all kinds at a steady rate, as an app's web processes do: ``python -m tests.chaos.feeder OPTIONS``.

OPTIONS is JSON: ``folder``, ``rate`` (jobs a second), ``mix`` (weights by kind), ``receiver`` (its URL), ``attempts``
(of jobs that are not planned to fail; None for the policy's). Each id that a call returned is in the file
``acknowledged``, each error in ``refused``.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from rqjobs import (
    RQJobsError,
    enqueue_data_export,
    enqueue_email,
    enqueue_manychat_sync,
    enqueue_qr_analytics,
    enqueue_webhook,
)
from tests.chaos import jobs
from tests.chaos.ledger import append, kind_of

MIX = {
    "hook": 70, "hook404": 1, "mail": 8, "chat": 2, "scan": 50, "export": 0.5,
    "own": 45, "coroutine": 20, "process": 0.5, "flaky": 1, "dead": 1,
}  # fmt: skip
"""Of 200 jobs, how many of each kind. ManyChat takes ten calls a second, so there are few of these."""

THREADS = 4
"""As a web process has: a call that waits for Redis holds up the others of its thread only."""


def _hook(path: str, event: str = "chaos.ran") -> Callable[..., Any]:
    def send(mark: str, receiver: str, **options: Any) -> Any:
        job = {"webhook_id": "wh", "event": event, "url": receiver + path, "payload": {"mark": mark}}
        return enqueue_webhook(job, **options)

    return send


def _named(mark: str, receiver: str, **options: Any) -> Any:
    """To one of many hosts, so that names are looked up all the time."""
    number = int(mark.rpartition(".")[2]) % 200
    url = receiver.replace("127.0.0.1", f"shop-{number}.hooks.test") + "/ok"
    job = {"webhook_id": "wh", "event": "chaos.ran", "url": url, "payload": {"mark": mark}}
    return enqueue_webhook(job, **options)


def _mail(mark: str, receiver: str, **options: Any) -> Any:
    mail = {"to": "ada@x.example", "subject": mark, "template": "welcome", "data": {"name": "Ada"}}
    return enqueue_email(mail, **options)


def _chat(mark: str, receiver: str, **options: Any) -> Any:
    data = {"email": f"{mark}@x.example", "first_name": "Ada", "has_opt_in_email": True}
    job = {"type": "contact", "action": "create", "tool_id": "tool_1", "data": data}
    return enqueue_manychat_sync(job, **options)


def _scan(mark: str, receiver: str, **options: Any) -> Any:
    job = {"qr_code_id": f"qr_{len(mark)}", "event": "scan", "data": {"event_id": mark}}
    return enqueue_qr_analytics(job, **options)


def _export(mark: str, receiver: str, **options: Any) -> Any:
    return enqueue_data_export({"user_id": "user_1", "export_type": "csv", "data_type": "contacts"}, **options)


def _own(job: Any) -> Callable[..., Any]:
    def send(mark: str, receiver: str, **options: Any) -> Any:
        return job.enqueue({"mark": mark, "seconds": random.uniform(0, 0.1)}, **options)

    return send


KINDS: dict[str, Callable[..., Any]] = {
    "hook": _hook("/ok"),
    "hook404": _hook("/404"),
    "far": _hook("/far"),
    "named": _named,
    "mail": _mail,
    "chat": _chat,
    "scan": _scan,
    "export": _export,
    "own": _own(jobs.own),
    "coroutine": _own(jobs.coroutine),
    "process": _own(jobs.process),
    "flaky": _own(jobs.flaky),
    "dead": _own(jobs.dead),
}


class Feeder:
    """The threads that enqueue."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.folder = Path(options["folder"])
        self.over = threading.Event()
        self._numbers = count()

    def run(self) -> None:
        """Enqueues until :attr:`over` is set."""
        threads = [threading.Thread(target=self._feed) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _feed(self) -> None:
        mix = self.options["mix"]
        pause = THREADS / self.options["rate"]
        due = time.monotonic()
        while not self.over.is_set():
            (kind,) = random.choices(list(mix), list(mix.values()))
            self.enqueue(f"{kind}.{next(self._numbers)}")
            due = max(due + pause, time.monotonic() - 1)  # what could not be enqueued is not made up for
            self.over.wait(max(0.0, due - time.monotonic()))

    def enqueue(self, mark: str) -> None:
        """One call, and its end in a file."""
        number = int(mark.rpartition(".")[2])
        options: dict[str, Any] = {"priority": ("normal", "normal", "high", "low")[number % 4]}
        if (attempts := self.options.get("attempts")) and kind_of(mark) not in ("flaky", "far"):
            options["attempts"] = attempts
        if kind_of(mark) == "far":
            options |= {"attempts": 50, "backoff": "fixed:1s"}
        if number % 20 == 0:
            options["delay"] = "2s"
        if number % 3 == 0:
            options["job_id"] = mark.replace(".", "-")
        try:
            job = KINDS[kind_of(mark)](mark, self.options["receiver"], **options)
        except Exception as error:
            ours = "ours" if isinstance(error, RQJobsError) else "foreign"
            append(self.folder / "refused", f"{mark} {ours}:{type(error).__name__} {time.time():.3f} {error}")
        else:
            append(self.folder / "acknowledged", f"{mark} {job.id} {time.time():.3f}")


def main() -> None:
    """Feeds until SIGTERM."""
    feeder = Feeder(json.loads(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: feeder.over.set())
    feeder.run()


if __name__ == "__main__":
    main()
