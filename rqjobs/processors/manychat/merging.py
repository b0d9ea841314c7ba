"""Merges changes of one contact that wait at the same time.

Every job with ``merge`` adds its change to the group of its contact, in Redis, and waits a moment. Then one job is
chosen: it applies all changes, in the order of enqueueing, and writes an outcome for each. The other jobs find their
outcomes when they run. A change stays in Redis until its outcome is written, so a worker may die at any moment. The
change of a job that was deleted, stopped or cancelled in between is dropped.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import redis

from rqjobs.attempt import Attempt
from rqjobs.broker.job_records import created_if_unfinished
from rqjobs.broker.job_signing import seal, unseal
from rqjobs.broker.keys import PREFIX
from rqjobs.broker.scripts import load_script
from rqjobs.config.logs import event
from rqjobs.errors import RetryLater
from rqjobs.jobs import ManyChatSyncJob
from rqjobs.jobs.manychat_data import Reference
from rqjobs.processors.manychat.accounts import Account

_BUSY = timedelta(milliseconds=250)


class Outcome(NamedTuple):
    """The outcome of one change."""

    merged_into: str
    """The id of the job that applied it."""
    result: dict[str, Any] | None = None
    failure: str | None = None
    """The reason of a permanent failure."""


class Waiting(NamedTuple):
    """One waiting change."""

    unit: str
    job: ManyChatSyncJob


class Group:
    """The waiting changes of one contact of one account."""

    def __init__(self, account: Account, job: ManyChatSyncJob, attempt: Attempt) -> None:
        details = job.details()
        identity = details.identity if isinstance(details, Reference) else ""
        digest = hashlib.blake2b(identity.encode(), key=account.key.encode(), digest_size=12).hexdigest()
        self.name = f"{account.key}:{digest}"
        """The key of the group: the same for all changes of the contact; it reveals neither contact nor token."""
        self.unit = unit_of(attempt)
        self._base = f"{PREFIX}:merge:{self.name}"
        self._own = json.dumps(job.dump()).encode()
        self._change = seal(self._own.decode(), self.unit)
        self._hold = int(attempt.remaining * 1000) + 5000  # a job that exceeds its time limit must not block others

    def join(self, pipeline: Any, window: timedelta) -> None:
        """Adds the change to the group.

        The response has the seconds to wait times 1000, 0 if this job is chosen, or -1 if it is done already.
        """
        args: list[str | int] = [self.unit, self._change, int(window.total_seconds() * 1000), self._hold]
        load_script("merge_join")(self._keys(self.unit), args, client=pipeline)

    def put_off(self, connection: redis.Redis, wait: float) -> None:
        """Releases the choice: no job of the group starts before ``wait`` seconds are over."""
        self._settle(connection, wait, [])

    def take(self, connection: redis.Redis) -> Outcome | list[Waiting]:
        """Returns all waiting changes, oldest first; or the outcome that this job's change has already.

        Raises:
            RetryLater: another job is applying them.
        """
        script = load_script("merge_take")
        word, *rest = script(self._keys(self.unit), [self.unit, self._change, self._hold], client=connection)
        if word == b"done":
            outcome = Outcome(**json.loads(rest[0]))
            if outcome.failure is not None:  # read only once, so that a requeued dead job is tried again
                connection.delete(self._keys(self.unit)[-1])
            return outcome
        if word == b"busy":
            raise RetryLater(_BUSY, "changes of the same contact are being applied", counts=False)
        found = dict(zip((unit.decode() for unit in rest[::2]), rest[1::2], strict=True))
        opened = {unit: unseal(change, unit) for unit, change in found.items()} | {self.unit: self._own}
        changes = {unit: change for unit, change in opened.items() if change is not None}
        if forged := [unit for unit in found if unit not in changes]:
            event(logging.WARNING, "changes dropped that are not signed with RQJOBS_SECRET_KEY", units=" ".join(forged))
            connection.hdel(self._keys()[0], *forged)
        for unit in self._gone(connection, [unit for unit in changes if unit != self.unit]):
            del changes[unit]
        return [Waiting(unit, ManyChatSyncJob.parse(json.loads(changes[unit]))) for unit in sorted(changes, key=_age)]

    def _gone(self, connection: redis.Redis, units: Sequence[str]) -> list[str]:
        """Returns those of ``units`` whose jobs will not run any more: deleted, cancelled or dead."""
        ids = [unit.rpartition("@")[0] for unit in units]
        created = created_if_unfinished(ids, connection)
        gone = [
            unit
            for unit, job_id, at in zip(units, ids, created, strict=True)
            if at is None or unit != _unit(job_id, at)  # a later job may have the same id
        ]
        if gone:
            connection.hdel(self._keys()[0], *gone)
        return gone

    def settle(self, connection: redis.Redis, outcomes: dict[str, Outcome]) -> None:
        """Writes outcomes by unit, and allows the next job of the group to start."""
        written = [
            (unit, "" if unit == self.unit and outcome.failure else json.dumps(outcome._asdict()))
            for unit, outcome in outcomes.items()
        ]
        self._settle(connection, 0, written)

    def give_up(self, connection: redis.Redis, *, leave: bool) -> None:
        """Ends an attempt that could not apply the changes.

        ``leave`` removes this job's own change, because it will be dead.
        """
        self._settle(connection, 0, [(self.unit, "")] if leave else [])

    def _settle(self, connection: redis.Redis, wait: float, outcomes: Sequence[tuple[str, str]]) -> None:
        keys = self._keys(*(unit for unit, _outcome in outcomes))
        args: list[str | int] = [self.unit, int(wait * 1000), *(word for pair in outcomes for word in pair)]
        load_script("merge_settle")(keys, args, client=connection)

    def _keys(self, *units: str) -> list[str]:
        return [f"{self._base}:changes", f"{self._base}:lock", *(f"{self._base}:done:{unit}" for unit in units)]


def unit_of(attempt: Attempt) -> str:
    """Returns a key for one enqueued job; its id alone may be used again later."""
    return _unit(attempt.job_id, attempt.enqueued_at)


def _unit(job_id: str, enqueued_at: datetime) -> str:
    return f"{job_id}@{enqueued_at.timestamp():.6f}"


def _age(unit: str) -> tuple[float, str]:
    return float(unit.rpartition("@")[2]), unit
