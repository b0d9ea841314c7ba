"""The send record: the state of handing a mail over, so that no attempt sends what another has sent.

It lives in Redis beside the job, not in the database: every worker that can run the job sees it by definition
(SQLite is a file of one machine), it costs two short round trips a mail, and it is exactly as durable as the job.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

import redis

from rqjobs.attempt import Attempt
from rqjobs.broker import keys
from rqjobs.broker.attempts import recorded_reasons
from rqjobs.broker.connection import PASSING, get_connection
from rqjobs.errors import RetryLater

ResultT = TypeVar("ResultT")

State = Literal["new", "sending", "partial", "released", "sent"]

_KEEP_SENT = timedelta(days=7)
_KEEP_OPEN = timedelta(days=366)  # as long as RQ keeps a dead letter
_REFUSED = (redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError)  # certainly not written
_AGAIN = 0.5  # seconds between two tries to write an outcome while Redis is away


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRecord:
    """What is known of one mail."""

    job_id: str
    job: str
    """The time at which the job was enqueued: a record with another time belongs to an earlier job of the same id."""
    key: str
    """The mail's idempotency key: the job's id, unless that was used for an earlier mail."""
    state: State = "new"
    """``sending`` while it is handed over: an attempt that finds it later has an unknown outcome before it.
    ``released`` when a person has requeued the dead letter that reported this."""
    at: float = 0.0
    """When the state was first written, Unix time."""
    backend: str = ""
    """The name of the backend that it is, or was, handed over to."""
    nonce: str = ""
    """A random id of this handing over: another run may hand over at the same moment."""
    unknown: int = 0
    """How often the outcome was unknown, and the mail was sent again."""
    accepted: list[str] = field(default_factory=list)
    """Addresses that it has gone to."""
    refused: dict[str, str] = field(default_factory=dict)
    """Addresses refused for good, each with the server's reply."""
    provider_id: str | None = None

    @property
    def handed_over(self) -> str:
        """When its handing over began, for people; no other run of this job has the same."""
        return f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%d %H:%M:%S.%f} UTC"

    def was_told(self) -> bool:
        """Whether the job has died with the error that this handing over has an unknown outcome.

        The job's history holds it, which is written in one step with the death: a note of our own could say that
        somebody knows when the worker was killed before the job was dead, and the mail would go out twice.
        """
        return any(self.handed_over in reason for reason in recorded_reasons(self.job_id))

    def begin(self, backend: str, attempt: Attempt) -> SendRecord:
        """Writes that the mail is being handed over to ``backend``, at the last moment before it is.

        Raises:
            RetryLater: another run of this job is doing the same right now, or Redis is full: without a record nothing
                is sent, and no attempt is used up.
        """
        since = self.at if self.state == "sending" else time.time()
        begun = replace(self, state="sending", at=since, backend=backend, nonce=secrets.token_hex(8))
        fresh = self.state == "new" and self.key == self.job_id
        try:
            # A lost reply may leave the record in Redis though the mail was never handed over.
            ours = _insist(lambda: begun._write(_KEEP_OPEN, fresh=fresh), attempt, but=_REFUSED)  # noqa: SLF001  # our own
        except PASSING as error:
            raise RetryLater(timedelta(seconds=10), f"Redis does not take it now: {error}", counts=False) from error
        if not ours:
            raise RetryLater(timedelta(seconds=10), "another run of this job is sending the mail", counts=False)
        return begun

    def settle(self, state: State, attempt: Attempt, **fields: Any) -> SendRecord:
        """Stores the outcome. While Redis is away this is tried again until the attempt's time is over."""
        settled = replace(self, state=state, at=time.time(), **fields)
        keep = _KEEP_SENT if state == "sent" else _KEEP_OPEN
        _insist(lambda: settled._write(keep), attempt)  # noqa: SLF001  # our own
        return settled

    def forget(self, attempt: Attempt) -> None:
        """Writes that the mail was certainly not sent. While Redis is away this is tried again as in :meth:`settle`."""
        if self.state == "new" and self.key == self.job_id:
            _insist(lambda: get_connection().delete(keys.email_send_record(self.job_id)), attempt)
        else:
            _insist(lambda: self._write(_KEEP_OPEN), attempt)

    def _write(self, keep: timedelta, *, fresh: bool = False) -> bool:
        document = {name: value for name, value in asdict(self).items() if value and name != "job_id"}
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        name = keys.email_send_record(self.job_id)
        if get_connection().set(name, text, ex=keep, nx=fresh):
            return True
        # If the answer to the first SET was lost, the client has sent it again, and found what we wrote ourselves.
        return bool(get_connection().get(name) == text.encode())


def _insist(
    write: Callable[[], ResultT], attempt: Attempt, but: tuple[type[redis.exceptions.RedisError], ...] = ()
) -> ResultT:
    """Calls ``write`` until Redis takes it: only this run has the outcome, without it the mail counts as unknown.

    Raises:
        redis.exceptions.RedisError: the attempt's time is over, or it is an error of ``but``.
    """
    while True:
        try:
            return write()
        except PASSING as error:
            if isinstance(error, but) or attempt.remaining <= _AGAIN:
                raise
            time.sleep(_AGAIN)


def read_send_record(attempt: Attempt) -> SendRecord:
    """What is known of the mail of this job; ``new`` if nothing is."""
    job = attempt.enqueued_at.isoformat()
    text = get_connection().get(keys.email_send_record(attempt.job_id))
    if text is None:
        return SendRecord(job_id=attempt.job_id, job=job, key=attempt.job_id)
    known = SendRecord(job_id=attempt.job_id, **json.loads(text))
    if known.job == job:
        return known
    # The id was used before, for a mail that has had its end: this one must differ from it in everything.
    return SendRecord(
        job_id=attempt.job_id, job=job, key=f"{attempt.job_id}.{int(attempt.enqueued_at.timestamp() * 1000)}"
    )
