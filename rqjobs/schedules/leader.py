"""Runs the schedules: a thread of the workers' leader sleeps until the next tick, and enqueues its job.

Having one leader only saves work. recurring_tick.lua gives a tick to a single caller, and writes its job and the next
tick in the same step: two leaders, or one that is killed at any moment, can neither lose a tick nor run it twice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NamedTuple, cast

import redis

from rqjobs.broker import keys
from rqjobs.broker.connection import PASSING
from rqjobs.broker.rq_schema import run_script
from rqjobs.broker.rq_types import as_text
from rqjobs.config.durations import spell
from rqjobs.config.logs import event
from rqjobs.schedules.declared import follow_code
from rqjobs.schedules.records import timing_of
from rqjobs.schedules.store import tick_arguments, tick_job_id
from rqjobs.schedules.ticks import Timing

_LOOK = 1.0
"""Seconds between two readings of the next tick, because a schedule may be added, or another leader may end."""

LATE = 60
"""Seconds after which a tick counts as late: then it is alerted, and ``catch_up`` decides whether it runs."""

_MOST = 100  # the most ticks that catch_up="all" runs
_PAGE = 200  # the most schedules of one round


class Step(NamedTuple):
    """The action for one tick, or for several that are skipped together."""

    tick: int
    upcoming: int | None
    """The next tick."""
    run: bool
    last: int | None = None
    """The last of the ticks that are skipped with this one."""


def plan(timing: Timing, due: int, now: int, catch_up: str) -> list[Step]:
    """Returns the actions for the ticks from ``due`` to ``now``.

    Each tick runs, unless it is late and ``catch_up`` excludes it.
    """
    on_time = [due] if due > now - LATE else []
    on_time += timing.between(max(due, now - LATE), now, _PAGE)
    keep = {"all": _MOST, "last": 0 if on_time else 1}.get(catch_up, 0)
    missed = timing.between(due - 1, now - LATE, keep) if keep and due <= now - LATE else []
    run = missed + on_time
    upcoming = timing.after(now)
    steps = []
    if not run or run[0] != due:
        first = run[0] if run else upcoming
        last = timing.between(due - 1, (run[0] if run else now + 1) - 1, 1)
        steps.append(Step(due, first, run=False, last=last[0] if last and last[0] != due else None))
    follows = [*run, upcoming][1:]
    return steps + [Step(tick, after, run=True) for tick, after in zip(run, follows, strict=False)]


class ScheduleThread:
    """Handles the ticks that are due, while ``is_leading()``."""

    def __init__(self, client: redis.Redis, is_leading: Callable[[], bool]) -> None:
        self._client = client
        self._is_leading = is_leading
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rqjobs-schedules", daemon=True)
        self._alerts = ThreadPoolExecutor(1, "rqjobs-schedule-alerts")
        self._followed = False

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stops the thread."""
        self._stopping.set()
        self._thread.join(2)
        self._alerts.shutdown(wait=False, cancel_futures=True)

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            try:
                wait = self.look()
            except PASSING:
                logging.getLogger("rqjobs").debug("the schedules could not be read", exc_info=True)
                wait = _LOOK
            except Exception:  # no error may end the thread
                logging.getLogger("rqjobs").exception("the schedules could not be kept")
                wait = _LOOK

    def look(self) -> float:
        """Handles the ticks that are due; returns the seconds until the next call."""
        if not self._followed:
            follow_code(self._client)
            self._followed = True
        if not self._is_leading():
            return _LOOK
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.zrange(keys.SCHEDULES_DUE, 0, 0, withscores=True)
            (second, micros), first = pipeline.execute()
        now = second + micros / 1_000_000
        if not first:
            return _LOOK
        if first[0][1] > now:
            return float(min(_LOOK, first[0][1] - now))
        return 0.0 if self._handle_due(second) else _LOOK

    def _handle_due(self, now: int) -> bool:
        """Handles the ticks up to ``now``; returns whether there were any."""
        due = cast(
            "list[tuple[bytes, float]]",
            self._client.zrangebyscore(keys.SCHEDULES_DUE, "-inf", now, start=0, num=_PAGE, withscores=True),
        )
        with self._client.pipeline(transaction=False) as pipeline:
            for raw, _ in due:
                pipeline.hmget(keys.schedule(as_text(raw)), ["version", "definition"])
            found = pipeline.execute(raise_on_error=False)
        names: list[str] = []
        with self._client.pipeline(transaction=False) as pipeline:
            for (raw, score), fields in zip(due, found, strict=True):
                name = as_text(raw)
                for arguments in self._calls(raw, fields, score, now):
                    run_script("recurring_tick", pipeline, arguments)
                    names.append(name)
            answers = pipeline.execute(raise_on_error=False)
        latest: dict[tuple[str, bytes], list[bytes]] = {}
        done = [(name, answer) for name, answer in zip(names, answers, strict=True) if isinstance(answer, list)]
        refused = {name: answer for name, answer in zip(names, answers, strict=True) if not isinstance(answer, list)}
        for name, error in refused.items():  # a key of its queue is of another type, or Redis is full
            event(logging.ERROR, "a tick could not be enqueued, and is tried again", schedule=name, error=str(error))
        for name, answer in done:  # one report of each kind, for the latest tick
            latest.setdefault((name, answer[0]), answer)
        for (name, _), answer in latest.items():
            self._report(name, [each.decode() for each in answer])
        return any(answer[0] in (b"enqueued", b"skipped") for _, answer in done)

    def _calls(self, member: bytes, fields: Any, score: float, now: int) -> Iterator[Any]:
        """Yields the arguments of recurring_tick.lua for each tick of one schedule."""
        try:
            name, due = member.decode(), int(score)
            version, raw = fields  # an error of Redis if its key is no hash
            definition = json.loads(raw or b"")
            timing, catch_up, jitter = timing_of(definition), definition["catch_up"], definition["jitter"]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            # It would stay the first one that is due; it is shown as unreadable.
            event(logging.ERROR, "a schedule cannot be read, and has no more ticks", schedule=as_text(member))
            self._client.zadd(keys.SCHEDULES_DUE, {member: float("inf")}, xx=True)
            return
        for step in plan(timing, due, now, catch_up):
            job_id = tick_job_id(now) if step.run else ""
            reason = "" if step.run else "no worker ran at its time"
            wait = random.uniform(0, jitter) if jitter else None  # noqa: S311
            yield tick_arguments(
                name, (version or b"").decode(), step.tick, step.upcoming, job_id=job_id, client=self._client,
                reason=reason, last=step.last, wait=wait,
            )  # fmt: skip

    def _report(self, name: str, answer: list[str]) -> None:
        if answer[0] not in ("enqueued", "skipped"):
            return
        late, reason = float(answer[1]), answer[2]
        if answer[0] == "skipped":
            event(logging.WARNING, "tick skipped", schedule=name, reason=reason)
            self._alerts.submit(_alert, "schedule-skipped", name, f"{name}: a tick was skipped: {reason}")
        elif late > LATE:
            text = f"{name}: a tick was {spell(timedelta(seconds=late))} late"
            event(logging.WARNING, "tick late", schedule=name, seconds=round(late))
            self._alerts.submit(_alert, "schedule-late", name, text)


def _alert(kind: Any, name: str, text: str) -> None:
    from rqjobs.monitoring.alerts import Alert, raise_alert

    with contextlib.suppress(*PASSING):
        raise_alert(Alert(kind=kind, subject=name, text=f"{text}. See: rqjobs schedules show {name}"))


@contextlib.contextmanager
def keep_schedules(client: redis.Redis, is_leading: Callable[[], bool]) -> Iterator[None]:
    """Runs the schedules while the block runs."""
    thread = ScheduleThread(client, is_leading)
    thread.start()
    try:
        yield
    finally:
        thread.stop()
