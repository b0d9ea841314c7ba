"""RQ 3's own layout in Redis: RQ's keys, its job hash and its serializer, for all other modules."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import redis
from rq.defaults import RQ_KEY_PREFIX
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import import_attribute

from rqjobs.broker.job_signing import FIELD, NOT_SIGNED, is_signed, sign, signs_jobs
from rqjobs.broker.scripts import load_script
from rqjobs.errors import JobNotFound, PermanentFailure, UnreadableJob
from rqjobs.jobs.base import encode_json, read_json
from rqjobs.policies import base_queue

ENTRY = "rqjobs.worker.entry.perform"
"""The one function that our jobs name; its first argument is the name of the queue, and so of its processor."""

SERIALIZER = JSONSerializer
"""JSON only: RQ's default, pickle, runs code when it is read."""

_PICKLE = b"\x80"  # the first byte of every pickle since protocol 2

_PICKLED = (
    "refused: the job's data is a pickle, which runs code when it is read; RQ's CronScheduler and RQ's Queue without "
    "serializer=JSONSerializer enqueue pickles"
)

UNREADABLE = "(unreadable)"
"""Shown in the place of a value that cannot be read."""

LARGEST_DATA = 32 * 2**20
"""Bytes of a job's ``data``, deflated or not, that are read: a worker takes no larger job (reserve.lua)."""

_PLAIN = 512  # bytes: what a hash of the embedded server holds in its compact form

_allowed: dict[str, Callable[..., Any]] = {}


def allow(function: Callable[..., Any]) -> Callable[..., Any]:
    """Lets workers run ``function`` when a plain RQ job (or its callback) names it. Usable as a decorator.

    RQ imports whatever dotted name a job holds, ``os.system`` included. Our workers run our own entry and what
    was allowed here, and nothing else.
    """
    _allowed[f"{function.__module__}.{function.__qualname__}"] = function
    return function


def allowed() -> frozenset[str]:
    """The names of the functions that workers may run besides our own entry."""
    return frozenset(_allowed)


def registered(name: str) -> Callable[..., Any] | None:
    """The function that was registered (:func:`allow`) under this dotted name, or None."""
    return _allowed.get(name)


class RegisteredJob(Job):
    """An RQ job whose function and callbacks are looked up, never imported by a name read from Redis."""

    forged = False
    """RQJOBS_SIGN_JOBS demands a signature, and the record has none that fits."""

    held = False
    """Its run has found a dependency away: RQ's retry is no failed attempt."""

    def restore(self, raw_data: Any) -> None:
        """Reads the job; one that must not run loses its retries, so that its failure is final.

        RQ's ``webhooks`` field is never read: RQ would send the requests that it describes to any address.
        """
        read = {field: value for field, value in raw_data.items() if field not in (b"webhooks", "webhooks")}
        super().restore(_inflated(read))
        self.forged = signs_jobs() and not is_signed(raw_data.get(FIELD.encode()), *_signed_parts(self))
        if self.enqueued_at is None and self._status not in (JobStatus.SCHEDULED, JobStatus.DEFERRED):
            self.enqueued_at = self.created_at  # one time is kept for both
        if self.refusal is not None:
            self.retries_left = 0
            self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """What RQ writes, without the time that was not read."""
        fields: dict[str, Any] = super().to_dict(include_meta, include_result)
        if self.enqueued_at == self.created_at:
            fields.pop("enqueued_at", None)
        return fields

    @property
    def refusal(self) -> str | None:
        """Why this job must not run, or None."""
        if self.forged:
            return NOT_SIGNED
        try:
            name = Job.func_name.fget(self)  # type: ignore[attr-defined]
            self.args, self.kwargs  # noqa: B018  # reading them deserializes them
        except DeserializationError:
            return _PICKLED if self._is_pickled else "refused: the job's data is not JSON"
        callbacks = (self._success_callback_name, self._failure_callback_name, self._stopped_callback_name)
        for wanted in (name, *callbacks):
            if wanted and wanted != ENTRY and wanted not in _allowed:
                return f"refused: {str(wanted)[:100]!r} is not a registered function"
        return None

    @property
    def _is_pickled(self) -> bool:
        return bytes(self.data or b"")[:1] == _PICKLE

    @property  # type: ignore[misc]  # RQ's has a setter, which rqjobs never calls
    def func_name(self) -> str:
        """The name that the job holds, for pages and logs."""
        try:
            return str(Job.func_name.fget(self))  # type: ignore[attr-defined]
        except DeserializationError:
            return UNREADABLE

    @property
    def func(self) -> Callable[..., Any]:
        """The registered function.

        Raises:
            PermanentFailure: the job names another one, or is not JSON.
        """
        if (refusal := self.refusal) is not None:
            raise PermanentFailure(refusal)
        name = self.func_name
        function: Callable[..., Any] = _allowed.get(name) or import_attribute(ENTRY)
        return function


def sign_job(job: Job) -> None:
    """Signs a plain RQ job, made by ``Job.create`` with the JSON serializer and not yet enqueued, as RQJOBS_SIGN_JOBS
    demands: workers run it if its function is registered (:func:`allow`). Then give it to ``Queue.enqueue_job``.
    """  # noqa: D205
    job.connection.hset(job.key, FIELD, sign(*_signed_parts(job)))


def _signed_parts(job: Job) -> tuple[str, str, bytes, tuple[str, str, str]]:
    success, failure, stopped = job._success_callback_name, job._failure_callback_name, job._stopped_callback_name  # noqa: SLF001
    callbacks = (success or "", failure or "", stopped or "")
    return base_queue(str(job.origin)), str(job.id), bytes(job.data or b""), callbacks


def _inflated(raw: Any) -> Any:
    """A job's hash with its data inflated, for RQ inflates it without a limit. Data that RQ would inflate once more, or
    that is too large, is replaced by none, which is refused.
    """  # noqa: D205
    name = "data" if "data" in raw else b"data"
    data = raw.get(name)
    if not data or data[:1] != b"x":
        return raw
    try:
        found = inflate(data)
    except (TooLarge, zlib.error):
        found = b""
    return {**raw, name: b"" if found[:1] == b"x" else found}


@cache
def rqjobs_version() -> str:
    """The version of rqjobs that is installed here; workers store it in Redis."""
    return version("rqjobs")


def key(*parts: str) -> str:
    """A key of RQ's: ``key("queue", "webhooks")`` is ``rq:queue:webhooks``."""
    return ":".join((RQ_KEY_PREFIX, *parts))


def timestamp(micros: int | None = None) -> str:
    """A time as RQ writes it, from microseconds of Unix time; now by default."""
    second, rest = divmod(time.time_ns() // 1000 if micros is None else micros, 1_000_000)
    return f"{_second(second)}.{rest:06}Z"


@lru_cache(100)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def job_key(job_id: str) -> str:
    """The hash of a job."""
    return key("job", job_id)


def results_key(job_id: str) -> str:
    """The stream of a job's results, newest last."""
    return key("results", job_id)


def fetch_job(job_id: str, connection: redis.Redis) -> RegisteredJob:
    """The job of this id.

    Raises:
        JobNotFound: there is none.
        UnreadableJob: its record is not what RQ writes.
    """
    try:
        job = RegisteredJob(job_id, connection=connection, serializer=SERIALIZER)
    except ValueError:  # a text that RQ accepts as no job's id
        raise JobNotFound(job_id) from None
    if not (raw := connection.hgetall(job_key(job_id))):
        raise JobNotFound(job_id)
    try:
        job.restore(raw)
    except NoSuchJobError:
        raise JobNotFound(job_id) from None
    except Exception as error:  # noqa: BLE001  # RQ's reading of a forged record may raise anything
        raise UnreadableJob(job_id, str(error)) from None
    return job


def payload_of(job: Job) -> tuple[str, dict[str, Any]] | None:
    """The queue and the payload of one of our jobs; None for a plain RQ job."""
    try:
        if job.func_name == ENTRY and len(job.args) == 2 and isinstance(job.args[1], dict):  # noqa: PLR2004
            return str(job.args[0]), job.args[1]
    except DeserializationError:
        pass
    return None


ENDED = ("finished", "failed", "stopped", "canceled")
"""The statuses of jobs that no worker will run unless they are requeued."""


def attempts_of(job: Job) -> int:
    """How many runs the job may have: RQ counts retries, and we keep one interval for each."""
    return len(job.retry_intervals or ()) + 1


def attempt_number(job: Job) -> int:
    """Which run comes next, or goes on now, from 1."""
    return max(1, attempts_of(job) - (job.retries_left or 0))


def attempts_seen(job: Job, runs: int) -> str:
    """How many of its attempts a job has begun: ``0 of 3`` while it waits for its first run.

    Of a job that has ended: how often it has run, its runs before a requeue included.
    """
    status = job.get_status(refresh=False)
    if status.value in ENDED:
        return str(runs)
    begun = min(attempt_number(job), attempts_of(job)) - (status is not JobStatus.STARTED)
    return f"{begun} of {attempts_of(job)}"


def run_script(name: str, connection: redis.Redis, args: Sequence[Any]) -> Any:
    """Runs ``rqjobs/broker/lua/<name>.lua`` with RQ's prefix as ARGV[1] and ``args`` after it.

    The scripts make their keys from the prefix, so they need one Redis, or one slot of a Redis Cluster.
    """
    return load_script(name)(args=[RQ_KEY_PREFIX, *args], client=connection)


def encode_data(queue: str, payload: bytes) -> bytes:
    """The ``data`` of a job: its function and arguments. ``payload`` is the job model as JSON."""
    return _call(queue) + payload + b"],{}]"


@cache
def _call(queue: str) -> bytes:
    return f'["{ENTRY}",null,[{encode_json(queue)},'.encode()


def pack_data(data: bytes) -> bytes:
    """``data`` as the job's hash holds it. RQ deflates all data, and reads plain data as well.

    Short data stays plain, which is faster. Deflated, what is longer takes less than half the memory, and most of it
    fits the compact form of a hash again.
    """
    return min(data, zlib.compress(data, 1), key=len) if len(data) > _PLAIN else data


def read_call(data: bytes) -> Any:
    """The call in the ``data`` of a job's hash, deflated or plain: function, instance, args and kwargs; None if none.

    Raises:
        ValueError, zlib.error: it is no JSON.
        TooLarge: it is deflated, and has more than 32 MiB.
    """
    return read_json(unpack_data(data))


def unpack_data(data: bytes) -> bytes:
    """The ``data`` of a job's hash as it was before :func:`pack_data`.

    Raises:
        zlib.error: it begins as deflated data does, and is none.
        TooLarge: it is deflated, and has more than 32 MiB.
    """
    return inflate(data) if data[:1] == b"x" else data


class TooLarge(ValueError):
    """Deflated data that would take too much memory."""


def inflate(data: bytes, most: int = LARGEST_DATA) -> bytes:
    """What ``data``, deflated by zlib, holds: ``most`` bytes or fewer.

    Raises:
        TooLarge: more than that. No more is inflated.
        zlib.error: it is not deflated, or ends too early.
    """
    stream = zlib.decompressobj()
    found = stream.decompress(data, most)
    if not stream.eof:
        if stream.unconsumed_tail or len(found) >= most:
            raise TooLarge(f"its data has over {most >> 20} MiB when it is inflated")
        raise zlib.error("incomplete or truncated stream")
    return found


def decode_data(data: bytes) -> dict[str, Any] | None:
    """The payload in the ``data`` of a job's hash; None for a plain RQ job and for what is not JSON."""
    try:
        function, _, args, _ = read_call(data)
        return args[1] if function == ENTRY and isinstance(args[1], dict) else None
    except (ValueError, TypeError, LookupError, RecursionError, zlib.error):
        return None
