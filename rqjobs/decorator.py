"""The decorator for the app's own jobs, which gives a function a queue with all features of the five built-in ones."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypedDict, TypeVar, Unpack, cast

from pydantic import BaseModel, TypeAdapter, ValidationError

from rqjobs.attempt import Attempt
from rqjobs.broker.job_builder import JobOptions
from rqjobs.broker.rq_types import Job
from rqjobs.config.backoff import Backoff, choose_attempts, parse_backoff
from rqjobs.config.durations import Rate, parse_explicit_duration, parse_rate
from rqjobs.enqueueing import enqueue
from rqjobs.errors import InvalidJob
from rqjobs.jobs.base import JobModel, describe_faults, json_faults
from rqjobs.policies import QueuePolicy, register_queue

if typing.TYPE_CHECKING:
    from rqjobs.schedules.records import ScheduleOptions

PayloadT = TypeVar("PayloadT")
ResultT = TypeVar("ResultT")

Surroundings = Callable[[], contextlib.AbstractContextManager[Any]]

_surroundings: list[Surroundings] = []


class PolicyOptions(TypedDict, total=False):
    """The options of :func:`job` that become the queue's policy (:class:`rqjobs.policies.QueuePolicy`)."""

    attempts: int
    """The most runs of a job; 3 by default."""
    backoff: Backoff | str
    """The wait before each retry; 2 s, 4 s, 8 s ... by default."""
    timeout: timedelta | str
    """The time limit of one run, a timedelta or text such as ``"5m"``; 60 s by default. It needs a unit."""
    concurrency: int
    """The most jobs that one worker process runs at once; 10 by default."""
    rate: Rate | str
    """The most jobs that all workers together start, such as ``"10/s"``; no limit by default."""
    group_concurrency: int
    """The most jobs of one group that run at once, over all workers; no limit by default. With 1 they run in order."""
    group_rate: Rate | str
    """The most jobs of one group that all workers together start, such as ``"10/s"``; no limit by default."""
    group_order: Literal["strict", "skip"]
    """Whether a group with ``group_concurrency=1`` waits for a retry of its first job; ``"strict"`` by default."""
    runs_in: Literal["thread", "process"]
    """``"process"`` for work that needs a core or much memory; ``"thread"`` by default."""


class OwnPayload(JobModel):
    """The job model that the decorator makes from the type of a function's payload."""

    adapter: ClassVar[TypeAdapter[Any]]
    payload_type: ClassVar[Any]

    value: Any

    @classmethod
    def parse(cls, data: object) -> Self:
        """Returns the job with the payload ``data``.

        Raises:
            InvalidJob: the payload is invalid; the message names every fault.
        """
        if isinstance(data, cls):
            return data
        plain = not isinstance(data, BaseModel) and isinstance(data, Mapping)
        faults = list(json_faults(dict(cast("Mapping[str, Any]", data)), "payload")) if plain else []
        if not faults:
            try:
                return cls(value=cls.adapter.validate_python(data))
            except ValidationError as error:
                known = inspect.isclass(cls.payload_type) and issubclass(cls.payload_type, BaseModel)
                faults = describe_faults(cls.payload_type if known else cls, error)
        raise InvalidJob(cls.__name__, faults)

    def dump(self) -> dict[str, Any]:
        """Returns the payload as JSON types."""
        dumped = self.adapter.dump_python(self.value, mode="json")
        faults = list(json_faults(dumped, "payload"))
        if not isinstance(dumped, dict):
            faults.append("the payload must be an object: a model, a dataclass or a dict")
        if faults:
            raise InvalidJob(type(self).__name__, faults)
        return cast("dict[str, Any]", dumped)

    def label(self) -> str:
        """Returns only the queue's name, because a payload must not appear in logs."""
        return self.queue


class OwnJob(Generic[PayloadT, ResultT]):
    """A function with a queue. Calling it runs it directly; :meth:`enqueue` makes a worker run it."""

    def __init__(self, function: Callable[..., ResultT], queue: str, policy: PolicyOptions) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.queue = queue
        payload_type, self._takes_attempt = _signature(function)
        self.model: type[OwnPayload] = type(
            function.__name__,
            (OwnPayload,),
            {
                "__module__": function.__module__,
                "__doc__": function.__doc__,
                "__annotations__": {"queue": "ClassVar[str]"},
                "queue": queue,
                "adapter": TypeAdapter(payload_type),
                "payload_type": payload_type,
            },
        )
        self.perform: Callable[[OwnPayload, Attempt], Any] = (
            self._perform_async if inspect.iscoroutinefunction(function) else self._perform
        )
        register_queue(_policy(self, _module_of(function), policy))

    def __call__(self, payload: PayloadT, *more: Any) -> ResultT:
        """Runs the function directly, without a queue."""
        return self.function(payload, *more)

    def enqueue(self, payload: PayloadT | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
        """Enqueues a run of the function with ``payload``.

        Raises:
            InvalidJob: the payload or an option is invalid; the message names every fault, and nothing was enqueued.
            DuplicateJob: a job with this id is waiting, delayed or running.
            RedisUnavailable: Redis does not answer.
        """
        return enqueue(self.job(payload), **options)

    async def aenqueue(self, payload: PayloadT | Mapping[str, Any], /, **options: Unpack[JobOptions]) -> Job:
        """:meth:`enqueue` for coroutines, without blocking the event loop."""
        from rqjobs.aio import aenqueue

        return await aenqueue(self.job(payload), **options)

    def job(self, payload: PayloadT | Mapping[str, Any]) -> OwnPayload:
        """Returns the job model of ``payload``, for ``enqueue_many`` and similar functions."""
        return self.model.parse(payload)

    def _perform(self, job: OwnPayload, attempt: Attempt) -> ResultT:
        with _surrounded():
            return self.function(job.value, attempt) if self._takes_attempt else self.function(job.value)

    async def _perform_async(self, job: OwnPayload, attempt: Attempt) -> Any:
        call = self.function(job.value, attempt) if self._takes_attempt else self.function(job.value)
        return await cast("Coroutine[Any, Any, Any]", call)


def job(
    queue: str | None = None,
    *,
    payload: Mapping[str, Any] | None = None,
    schedule: ScheduleOptions | None = None,
    cron: str | None = None,
    every: timedelta | str | None = None,
    timezone: str = "UTC",
    **policy: Unpack[PolicyOptions],
) -> Callable[[Callable[..., ResultT]], OwnJob[Any, ResultT]]:
    """Makes a function a job with its own queue: with retries, dead letters, limits, health and dashboard.

        @rqjobs.job(queue="thumbnails", attempts=5)
        def make_thumbnail(payload: Thumbnail) -> dict: ...

        make_thumbnail.enqueue(Thumbnail(image="a.png", width=200))

    The function takes its payload (a pydantic model, a dataclass, a TypedDict or a dict, by its annotation) and
    optionally the :class:`rqjobs.attempt.Attempt`. Its result and its exceptions have the same meaning as those of
    every processor. A coroutine function runs on the worker's event loop.

    Args:
        queue: the queue's name; by default the function's name with ``-`` for ``_``. A queue has one function.
        cron: declares a schedule with the queue's name that enqueues the job at these times: five fields such as
            ``"0 3 * * *"``. Workers follow the code: a changed declaration changes the schedule, a removed one deletes
            it.
        every: an interval instead of ``cron``, such as ``"5m"``.
        timezone: the IANA time zone of ``cron``.
        payload: the payload that the schedule enqueues; ``{}`` by default.
        schedule: further options of the schedule: ``starts``, ``ends``, ``catch_up``, ``overlap``, ``jitter``.
        policy: the values of the queue's policy; ``RQJOBS_<QUEUE>_*`` changes them for one installation.

    Raises:
        ValueError: the queue belongs to another function, or a value of the policy is invalid.
    """

    def decorate(function: Callable[..., ResultT]) -> OwnJob[Any, ResultT]:
        own: OwnJob[Any, ResultT] = OwnJob(function, queue or function.__name__.strip("_").replace("_", "-"), policy)
        if cron is not None or every is not None:
            from rqjobs.schedules.declared import declare

            times = {"cron": cron, "every": every, "timezone": timezone, **(schedule or {})}
            declare(own.queue, own.job(payload or {}), times, _module_of(function))
        elif payload is not None or schedule is not None:
            raise ValueError("payload and schedule need cron or every")
        return own

    return decorate


def surround_jobs(surroundings: Surroundings) -> None:
    """Runs every job of the app inside the context manager ``surroundings()``, for a framework's connections."""
    if surroundings not in _surroundings:
        _surroundings.append(surroundings)


@contextlib.contextmanager
def _surrounded() -> typing.Iterator[None]:
    with contextlib.ExitStack() as stack:
        for surroundings in _surroundings:
            stack.enter_context(surroundings())
        yield


def _signature(function: Callable[..., Any]) -> tuple[Any, bool]:
    """Returns the type of the payload, and whether the function also takes the attempt."""
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if not 1 <= len(parameters) <= 2:  # noqa: PLR2004
        raise ValueError(f"{function.__qualname__} must take its payload and, if wanted, the attempt")
    hint = typing.get_type_hints(function).get(parameters[0].name, dict[str, Any])
    return (dict[str, Any] if hint is dict else hint), len(parameters) > 1


def _module_of(function: Callable[..., Any]) -> str:
    """Returns the module from which workers import the function; a script run by its path has the name ``__main__``."""
    if function.__module__ != "__main__":
        return function.__module__
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    return str(spec.name) if spec else Path(getattr(main, "__file__", "__main__")).stem


def _policy(own: OwnJob[Any, Any], module: str, options: PolicyOptions) -> QueuePolicy:
    given: dict[str, Any] = dict(options)
    unknown = set(given) - set(PolicyOptions.__annotations__)
    if unknown:
        raise ValueError(f"no such part of a policy: {', '.join(sorted(unknown))}")
    parsers = {"backoff": parse_backoff, "timeout": parse_explicit_duration, "rate": parse_rate}
    parsers["group_rate"] = parse_rate
    for name, parse in parsers.items():
        if name in given:
            try:
                given[name] = cast("Callable[[Any], Any]", parse)(given[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    given["attempts"] = choose_attempts(given.get("attempts"), given.get("backoff"), QueuePolicy.attempts)
    return QueuePolicy(
        name=own.queue,
        kind=own.queue,
        model=own.model,
        processor=f"{module}:{own.function.__qualname__}.perform",
        **given,
    )
