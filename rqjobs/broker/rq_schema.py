"""RQ 3's data in Redis: its keys, its job hash and its serializer. All other modules use this one."""

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
from rqjobs.broker.unreadable import is_noted
from rqjobs.errors import JobNotFound, PermanentFailure, UnreadableJob
from rqjobs.jobs.base import encode_json, read_json
from rqjobs.policies import base_queue

ENTRY = "rqjobs.worker.entry.perform"
"""The function in every job of ours; its first argument is the name of the queue, which selects the processor."""

SERIALIZER = JSONSerializer
"""JSON only: RQ's default is pickle, which runs code when it is read."""

_PICKLE = b"\x80"  # the first byte of every pickle since protocol 2

_PICKLED = (
    "refused: the job's data is a pickle, which runs code when it is read; RQ's CronScheduler and RQ's Queue without "
    "serializer=JSONSerializer enqueue pickles"
)

UNREADABLE = "(unreadable)"
"""Shown instead of a value that cannot be read."""

LARGEST_DATA = 32 * 2**20
"""The most bytes of a job's ``data``, deflated or not: a worker refuses larger jobs (reserve.lua)."""

BATCH_FIELD = "batch"
"""The field of a job's hash with the id of its batch."""

_PLAIN = 512  # bytes: the longest value in a compact hash of the embedded server

_allowed: dict[str, Callable[..., Any]] = {}


def allow(function: Callable[..., Any]) -> Callable[..., Any]:
    """Registers ``function``, so that workers may run it for a plain RQ job or as its callback. Usable as a decorator.

    RQ imports any dotted name in a job, even ``os.system``. Our workers run only our own entry and the functions
    registered here.
    """
    _allowed[f"{function.__module__}.{function.__qualname__}"] = function
    return function


def allowed() -> frozenset[str]:
    """Returns the names of the functions that workers may run besides our own entry."""
    return frozenset(_allowed)


def registered(name: str) -> Callable[..., Any] | None:
    """Returns the function registered under this dotted name by :func:`allow`, or None."""
    return _allowed.get(name)


class RegisteredJob(Job):
    """An RQ job whose function and callbacks are looked up among the registered ones, never imported by name."""

    forged = False
    """Whether RQJOBS_SIGN_JOBS is on and the record has no valid signature."""

    batch = ""
    """The batch of which it is a member; "" if none."""

    absorbed = 0
    """How many later calls a debounced job has absorbed."""

    held = False
    """Whether its run found a dependency unavailable, so that RQ's retry does not count as a failed attempt."""

    def restore(self, raw_data: Any) -> None:
        """Reads the job from its hash; one that must not run loses its retries, so that its failure is final.

        RQ's field ``webhooks`` is ignored: RQ would send the requests in it to any address.
        """
        read = {field: value for field, value in raw_data.items() if field not in (b"webhooks", "webhooks")}
        super().restore(_inflated(read))
        absorbed = raw_data.get(b"absorbed", b"")
        self.absorbed = int(absorbed) if absorbed.isdigit() and len(absorbed) < 20 else 0  # noqa: PLR2004
        self.batch = raw_data.get(BATCH_FIELD.encode(), b"").decode(errors="replace")
        self.forged = signs_jobs() and not is_signed(raw_data.get(FIELD.encode()), *_signed_parts(self))
        if self.enqueued_at is None and self._status not in (JobStatus.SCHEDULED, JobStatus.DEFERRED):
            self.enqueued_at = self.created_at  # our hashes keep one time for both
        if self.refusal is not None:
            self.retries_left = 0
            self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """Returns the fields that RQ writes, except an ``enqueued_at`` that was not in the hash."""
        fields: dict[str, Any] = super().to_dict(include_meta, include_result)
        if self.enqueued_at == self.created_at:
            fields.pop("enqueued_at", None)
        return fields

    @property
    def refusal(self) -> str | None:
        """Why this job must not run, or None if it may."""
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
        """The name of the function in the job, for pages and logs."""
        try:
            return str(Job.func_name.fget(self))  # type: ignore[attr-defined]
        except DeserializationError:
            return UNREADABLE

    @property
    def func(self) -> Callable[..., Any]:
        """The registered function.

        Raises:
            PermanentFailure: the job names a function that is not registered, or its data is not JSON.
        """
        if (refusal := self.refusal) is not None:
            raise PermanentFailure(refusal)
        name = self.func_name
        function: Callable[..., Any] = _allowed.get(name) or import_attribute(ENTRY)
        return function


def sign_job(job: Job) -> None:
    """Signs a plain RQ job for RQJOBS_SIGN_JOBS; then pass it to ``Queue.enqueue_job``.

    The job is made by ``Job.create`` with the JSON serializer. Workers run it if its function is registered
    (:func:`allow`).
    """
    job.connection.hset(job.key, FIELD, sign(*_signed_parts(job)))


def _signed_parts(job: Job) -> tuple[str, str, bytes, tuple[str, str, str]]:
    success, failure, stopped = job._success_callback_name, job._failure_callback_name, job._stopped_callback_name  # noqa: SLF001
    callbacks = (success or "", failure or "", stopped or "")
    return base_queue(str(job.origin)), str(job.id), bytes(job.data or b""), callbacks


def _inflated(raw: Any) -> Any:
    """Returns a job's hash with its data inflated up to a limit, because RQ inflates without one.

    Data that is too large, or that RQ would inflate again, is replaced by empty data, which is refused.
    """
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
    """Returns the installed version of rqjobs, which workers store in Redis."""
    return version("rqjobs")


def key(*parts: str) -> str:
    """Returns a key of RQ: ``key("queue", "webhooks")`` is ``rq:queue:webhooks``."""
    return ":".join((RQ_KEY_PREFIX, *parts))


def timestamp(micros: int | None = None) -> str:
    """Returns a time in RQ's format, from microseconds of Unix time; by default the current time."""
    second, rest = divmod(time.time_ns() // 1000 if micros is None else micros, 1_000_000)
    return f"{_second(second)}.{rest:06}Z"


def with_zone(moment: datetime) -> datetime:
    """Returns a time of RQ's, which are UTC, with its time zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def both_formats(seconds: float) -> tuple[str, str]:
    """Returns a Unix time as text in seconds, with microseconds, and in RQ's format."""
    second, rest = divmod(round(seconds * 1_000_000), 1_000_000)
    fraction = f".{rest:06}"
    return f"{second}{fraction}", f"{_second(second)}{fraction}Z"


@lru_cache(100)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat()[:19]


def job_key(job_id: str) -> str:
    """Returns the key of a job's hash."""
    return key("job", job_id)


def results_key(job_id: str) -> str:
    """Returns the key of the stream with a job's results, newest last."""
    return key("results", job_id)


def fetch_job(job_id: str, connection: redis.Redis) -> RegisteredJob:
    """Returns the job with this id.

    Raises:
        JobNotFound: there is none.
        UnreadableJob: its record is not one of RQ.
    """
    try:
        job = RegisteredJob(job_id, connection=connection, serializer=SERIALIZER)
    except ValueError:  # RQ does not accept the text as a job's id
        raise JobNotFound(job_id) from None
    if not (raw := connection.hgetall(job_key(job_id))):
        if is_noted(job_key(job_id)):
            raise UnreadableJob(job_id, "its key is no hash")
        raise JobNotFound(job_id)
    try:
        job.restore(raw)
    except NoSuchJobError:
        raise JobNotFound(job_id) from None
    except Exception as error:  # noqa: BLE001  # RQ's reading of a forged record may raise anything
        raise UnreadableJob(job_id, str(error)) from None
    return job


def payload_of(job: Job) -> tuple[str, dict[str, Any]] | None:
    """Returns the queue and the payload of one of our jobs; None for a plain RQ job."""
    try:
        if job.func_name == ENTRY and len(job.args) == 2 and isinstance(job.args[1], dict):  # noqa: PLR2004
            return str(job.args[0]), job.args[1]
    except DeserializationError:
        pass
    return None


ENDED = ("finished", "failed", "stopped", "canceled")
"""RQ's statuses of jobs that no worker runs unless they are requeued."""


def attempts_of(job: Job) -> int:
    """Returns the most runs of the job: RQ counts retries, and the job has one interval for each."""
    return len(job.retry_intervals or ()) + 1


def attempt_number(job: Job) -> int:
    """Returns the number of the current or next run, from 1."""
    return max(1, attempts_of(job) - (job.retries_left or 0))


def attempts_seen(job: Job, runs: int) -> str:
    """Returns the attempts that a job has begun, such as ``0 of 3`` before its first run.

    For a job that has ended it is the number of its runs, including those before a requeue.
    """
    status = job.get_status(refresh=False)
    if status.value in ENDED:
        return str(runs)
    begun = min(attempt_number(job), attempts_of(job)) - (status is not JobStatus.STARTED)
    return f"{begun} of {attempts_of(job)}"


def run_script(name: str, connection: redis.Redis, args: Sequence[Any]) -> Any:
    """Runs ``rqjobs/broker/lua/<name>.lua`` with RQ's prefix as ARGV[1] and ``args`` after it.

    The scripts make their keys from the prefix, so they need a single Redis, or one slot of a Redis Cluster.
    """
    return load_script(name)(args=[RQ_KEY_PREFIX, *args], client=connection)


def encode_data(queue: str, payload: bytes) -> bytes:
    """Returns the ``data`` of a job: its function and arguments. ``payload`` is the job model as JSON."""
    return _call(queue) + payload + b"],{}]"


@cache
def _call(queue: str) -> bytes:
    return f'["{ENTRY}",null,[{encode_json(queue)},'.encode()


def pack_data(data: bytes) -> bytes:
    """Returns ``data`` in the form of the job's hash: deflated if it is long, otherwise plain. RQ reads both.

    Short data stays plain, which is faster. Deflated, long data takes less than half the memory, and most of it
    fits into a compact hash.
    """
    return min(data, zlib.compress(data, 1), key=len) if len(data) > _PLAIN else data


def read_call(data: bytes) -> Any:
    """Returns function, instance, args and kwargs from the ``data`` of a job's hash, deflated or plain.

    Raises:
        ValueError, zlib.error: it is not JSON.
        TooLarge: it inflates to more than 32 MiB.
    """
    return read_json(unpack_data(data))


def unpack_data(data: bytes) -> bytes:
    """Returns the argument of :func:`pack_data`, from the ``data`` of a job's hash.

    Raises:
        zlib.error: it begins like deflated data, but is not.
        TooLarge: it inflates to more than 32 MiB.
    """
    return inflate(data) if data[:1] == b"x" else data


class TooLarge(ValueError):
    """Deflated data that would inflate to too many bytes."""


def inflate(data: bytes, most: int = LARGEST_DATA) -> bytes:
    """Inflates ``data``, which zlib has deflated, to at most ``most`` bytes.

    Raises:
        TooLarge: there is more. Inflating stops at the limit.
        zlib.error: it is not deflated, or incomplete.
    """
    stream = zlib.decompressobj()
    found = stream.decompress(data, most)
    if not stream.eof:
        if stream.unconsumed_tail or len(found) >= most:
            raise TooLarge(f"its data has over {most >> 20} MiB when it is inflated")
        raise zlib.error("incomplete or truncated stream")
    return found


def decode_data(data: bytes) -> dict[str, Any] | None:
    """Returns the payload in the ``data`` of a job's hash; None for a plain RQ job, and for data that is not JSON."""
    try:
        function, _, args, _ = read_call(data)
        return args[1] if function == ENTRY and isinstance(args[1], dict) else None
    except (ValueError, TypeError, LookupError, RecursionError, zlib.error):
        return None
