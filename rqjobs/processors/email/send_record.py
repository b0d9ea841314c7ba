"""The send record: whether a mail may have been sent, so that no attempt sends it twice.

It is in Redis beside the job, not in the database: every worker that can run the job can read it (SQLite is a file of
one machine), it costs two short round trips per mail, and it is exactly as durable as the job.
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
_AGAIN = 0.5  # seconds between two attempts to write an outcome while Redis does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class SendRecord:
    """The state of sending one mail."""

    job_id: str
    job: str
    """The time of the job's enqueueing: a record with another time belongs to an earlier job with the same id."""
    key: str
    """The idempotency key of the mail: the job's id, unless an earlier mail has used it."""
    state: State = "new"
    """``sending`` while a backend sends it: if a later attempt finds this, the outcome of the earlier one is unknown.
    ``released`` after a user has requeued the dead letter that reported the unknown outcome."""
    at: float = 0.0
    """The time at which the state was first written, in Unix time."""
    backend: str = ""
    """The name of the backend that sends or has sent it."""
    nonce: str = ""
    """A random id of this sending: another run may send at the same moment."""
    unknown: int = 0
    """The number of times that the outcome was unknown and the mail was sent again."""
    accepted: list[str] = field(default_factory=list)
    """Addresses that the server has accepted."""
    refused: dict[str, str] = field(default_factory=dict)
    """Addresses refused for good, each with the server's reply."""
    provider_id: str | None = None

    @property
    def handed_over(self) -> str:
        """The time at which sending began, as text; unique among the runs of this job."""
        return f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%d %H:%M:%S.%f} UTC"

    def was_told(self) -> bool:
        """Whether the job is dead with the error that the outcome of this sending is unknown.

        That error is in the job's history, which is written together with the job's death. A separate note might claim
        it although the worker was killed before the job was dead, and the mail would be sent twice.
        """
        return any(self.handed_over in reason for reason in recorded_reasons(self.job_id))

    def begin(self, backend: str, attempt: Attempt) -> SendRecord:
        """Records that ``backend`` is about to send the mail; called just before it does.

        Raises:
            RetryLater: another run of this job is sending it, or Redis is full; without a record nothing is sent, and
                no attempt is counted.
        """
        since = self.at if self.state == "sending" else time.time()
        begun = replace(self, state="sending", at=since, backend=backend, nonce=secrets.token_hex(8))
        fresh = self.state == "new" and self.key == self.job_id
        try:
            # If only the reply is lost, the record is in Redis although the mail was not sent.
            ours = _insist(lambda: begun._write(_KEEP_OPEN, fresh=fresh), attempt, but=_REFUSED)  # noqa: SLF001  # our own
        except PASSING as error:
            raise RetryLater(timedelta(seconds=10), f"Redis does not take it now: {error}", counts=False) from error
        if not ours:
            raise RetryLater(timedelta(seconds=10), "another run of this job is sending the mail", counts=False)
        return begun

    def settle(self, state: State, attempt: Attempt, **fields: Any) -> SendRecord:
        """Stores the outcome. While Redis does not answer, it retries until the attempt's time is over."""
        settled = replace(self, state=state, at=time.time(), **fields)
        keep = _KEEP_SENT if state == "sent" else _KEEP_OPEN
        _insist(lambda: settled._write(keep), attempt)  # noqa: SLF001  # our own
        return settled

    def forget(self, attempt: Attempt) -> None:
        """Records that the mail was certainly not sent; retries as :meth:`settle` does."""
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
        # If the response to the first SET was lost, the client has sent it again, and found our own record.
        return bool(get_connection().get(name) == text.encode())


def _insist(
    write: Callable[[], ResultT], attempt: Attempt, but: tuple[type[redis.exceptions.RedisError], ...] = ()
) -> ResultT:
    """Calls ``write`` until Redis accepts it: only this run knows the outcome, and without it the mail's is unknown.

    Raises:
        redis.exceptions.RedisError: the attempt's time is over, or it is one of the errors in ``but``.
    """
    while True:
        try:
            return write()
        except PASSING as error:
            if isinstance(error, but) or attempt.remaining <= _AGAIN:
                raise
            time.sleep(_AGAIN)


def read_send_record(attempt: Attempt) -> SendRecord:
    """Returns the send record of this job; with the state ``new`` if there is none."""
    job = attempt.enqueued_at.isoformat()
    text = get_connection().get(keys.email_send_record(attempt.job_id))
    if text is None:
        return SendRecord(job_id=attempt.job_id, job=job, key=attempt.job_id)
    known = SendRecord(job_id=attempt.job_id, **json.loads(text))
    if known.job == job:
        return known
    # An earlier mail has used the id and is completed, so this one must not share its key or Message-ID.
    return SendRecord(
        job_id=attempt.job_id, job=job, key=f"{attempt.job_id}.{int(attempt.enqueued_at.timestamp() * 1000)}"
    )
