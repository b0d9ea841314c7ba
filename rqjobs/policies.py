"""The policy table: the queues in the order of priority, each with its attempts, waits, time limit and slots.

``rqjobs queues`` prints it with the settings of an installation applied.
"""

from __future__ import annotations

import importlib
import operator
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal, cast

from rqjobs.config.backoff import Backoff, choose_attempts, exponential
from rqjobs.config.durations import Rate
from rqjobs.config.settings import QueueSettings, get_settings
from rqjobs.errors import InvalidSettings, RQJobsError, UnknownQueue
from rqjobs.jobs.base import JobModel

Priority = Literal["high", "normal", "low"]
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")


@dataclass(frozen=True, kw_only=True)
class QueuePolicy:
    """The policy of one queue. The settings RQJOBS_<QUEUE>_* can set the fields in ``TUNABLE``."""

    name: str
    """The queue's name in Redis, and the registered name of its processor."""
    kind: str
    """The job's name on the command line."""
    model: type[JobModel] | str
    """The model of this queue's jobs: the class, or ``module:Class``, which is imported when it is needed."""
    processor: str
    """``module:function``, imported only by processes that run jobs."""
    attempts: int = 3
    """The most runs of one job, including the first."""
    backoff: Backoff = field(default_factory=exponential)
    """The wait before each retry: 2 s, 4 s, 8 s ..."""
    timeout: timedelta = timedelta(seconds=60)
    """The time limit of one run."""
    concurrency: int = 10
    """The slots of this queue in one worker process: the most jobs that it runs at once."""
    rate: Rate | None = None
    """The most jobs of this queue that all workers together start in a period; None for no limit."""
    group_concurrency: int | None = None
    """The most jobs of one group that run at once, over all workers; None for no limit. With 1 they run in order."""
    group_rate: Rate | None = None
    """The most jobs of one group that all workers together start in a period; None for no limit."""
    group_order: Literal["strict", "skip"] = "strict"
    """The effect of a job that waits for its retry, with ``group_concurrency=1``: ``strict``, its group waits too;
    ``skip``, the next jobs of the group run before it.
    """
    runs_in: Literal["thread", "process"] = "thread"
    """``process`` for work that needs a core or much memory: it can be killed at its time limit."""
    batch: str | None = None
    """``module:function`` that runs a list of jobs in one call; None if each job is run by ``processor``."""
    batch_size: int = 1000
    """The most jobs in one call of ``batch``."""
    admit: str | None = None
    """``module:function`` that may hold jobs before they start.

    Its arguments are jobs and their attempts. For each it returns None, a :class:`rqjobs.attempt.Hold`, or, if the job
    belongs to a held part of the queue, a :class:`rqjobs.errors.DependencyUnavailable` with that scope
    (:func:`rqjobs.broker.holds.held_scopes`). It raises DependencyUnavailable if its own dependency is unavailable.
    """
    check: str | None = None
    """``module:function`` that returns every fault of a job that its model cannot find.

    The processes of the app call it when they enqueue, so its module must be cheap to import.
    """

    @property
    def limits_groups(self) -> bool:
        """Whether it limits the jobs of single groups."""
        return self.group_concurrency is not None or self.group_rate is not None

    @property
    def group_slot(self) -> Literal["", "run", "job"]:
        """How long a job has a slot of its group: until its ``run`` ends, or until the ``job`` is done or dead.

        "" if the slots of a group are not limited.
        """
        if self.group_concurrency is None:
            return ""
        return "job" if self.group_concurrency == 1 and self.group_order == "strict" else "run"

    @cached_property
    def job_type(self) -> type[JobModel]:
        """The class of ``model``, imported if necessary."""
        return self.model if isinstance(self.model, type) else cast("type[JobModel]", load(self.model))


_POLICIES: dict[str, QueuePolicy] = {
    policy.name: policy
    for policy in (
        QueuePolicy(
            name="webhooks",
            kind="webhook",
            model="rqjobs.jobs:WebhookJob",
            processor="rqjobs.processors.webhook:deliver",
            admit="rqjobs.processors.webhook:admit",
            attempts=3,
            backoff=exponential(timedelta(seconds=2)),
            timeout=timedelta(seconds=30),
            concurrency=200,
            rate=None,
        ),
        QueuePolicy(
            name="manychat-sync",
            kind="manychat-sync",
            model="rqjobs.jobs:ManyChatSyncJob",
            processor="rqjobs.processors.manychat:sync",
            admit="rqjobs.processors.manychat:admit",
            attempts=3,
            backoff=exponential(timedelta(seconds=2)),
            timeout=timedelta(seconds=60),
            concurrency=10,
            rate=None,  # the processor keeps to ManyChat's limits for each account
        ),
        QueuePolicy(
            name="email",
            kind="email",
            model="rqjobs.jobs:EmailJob",
            processor="rqjobs.processors.email:send",
            check="rqjobs.mail:check",
            admit="rqjobs.processors.email:admit",
            attempts=3,
            backoff=exponential(timedelta(seconds=2)),
            timeout=timedelta(seconds=60),
            concurrency=10,
            rate=None,
        ),
        QueuePolicy(
            name="qr-analytics",
            kind="qr-analytics",
            model="rqjobs.jobs:QRAnalyticsJob",
            processor="rqjobs.processors.analytics:record",
            batch="rqjobs.processors.analytics:record_batch",
            batch_size=4000,
            attempts=3,
            backoff=exponential(timedelta(seconds=2)),
            timeout=timedelta(seconds=30),
            concurrency=10,
            rate=None,
        ),
        QueuePolicy(
            name="data-export",
            kind="data-export",
            model="rqjobs.jobs:DataExportJob",
            processor="rqjobs.processors.export:export",
            check="rqjobs.sources:check",
            attempts=3,
            backoff=exponential(timedelta(seconds=2)),
            timeout=timedelta(hours=1),
            concurrency=1,
            rate=None,
            runs_in="process",
        ),
    )
}


_BUILT_IN = tuple(_POLICIES.values())

Source = Literal["default", "setting", "code"]
"""The source of a policy's value: the table above, RQJOBS_<QUEUE>_*, or the app's own policy."""

TUNABLE = ("attempts", "backoff", "timeout", "concurrency", "rate", "group_concurrency", "group_rate", "group_order")
"""The fields of a policy that RQJOBS_<QUEUE>_* can set."""


_applied: dict[str, tuple[QueuePolicy, QueueSettings, QueuePolicy]] = {}
"""Cached by queue: the policy without settings, the settings, and the policy with settings."""


def register_queue(policy: QueuePolicy) -> None:
    """Adds a queue of the app, after the five. RQJOBS_IMPORT makes workers import its module.

    Raises:
        ValueError: the name belongs to another processor, is empty, or contains ``:``.
    """
    known = _POLICIES.get(policy.name)
    if known is not None and known.processor != policy.processor:
        raise ValueError(f"queue {policy.name!r} already belongs to {known.processor}")
    if ":" in policy.name or not policy.name:
        raise ValueError(f"a queue's name has no colon, that is for lanes: {policy.name!r}")
    _POLICIES[policy.name] = policy


def policies() -> Iterator[QueuePolicy]:
    """Yields the policy of every queue, with settings applied, in the order of priority."""
    return (get_policy(name) for name in _POLICIES)


def sources_of(queue: str) -> dict[str, Source]:
    """Returns the source of each tunable value of the policy of ``queue``, by the names in ``TUNABLE``.

    Raises:
        UnknownQueue: there is no such queue.
    """
    name = get_policy(queue).name
    base: Source = "default" if any(_POLICIES[name] is policy for policy in _BUILT_IN) else "code"
    overrides = get_settings().queues.get(name)
    return {field: base if getattr(overrides, field, None) is None else "setting" for field in TUNABLE}


def base_policy(queue: str) -> QueuePolicy:
    """Returns the policy of ``queue`` without settings.

    Raises:
        UnknownQueue: there is no such queue.
    """
    return _POLICIES[get_policy(queue).name]


def setting_of(queue: str, field: str) -> str:
    """Returns the environment variable that sets the tunable ``field`` of ``queue``.

    For example ``RQJOBS_QR_ANALYTICS_ATTEMPTS``.
    """
    return f"RQJOBS_{queue.upper().replace('-', '_')}_{field.upper()}"


def get_policy(name: str) -> QueuePolicy:
    """Returns the policy of the queue (or lane, or kind) ``name``, with settings applied.

    Raises:
        UnknownQueue: there is none.
    """
    base = base_queue(name)
    policy = _POLICIES.get(base) or next((p for p in _POLICIES.values() if p.kind == base), None)
    if policy is None:
        raise UnknownQueue(name, list(_POLICIES))
    overrides = get_settings().queues.get(policy.name)
    if overrides is None:
        return policy
    known = _applied.get(policy.name)
    if known is None or known[0] is not policy or known[1] is not overrides:
        given = {key: value for key, value in overrides if value is not None}
        given["attempts"] = choose_attempts(overrides.attempts, overrides.backoff, policy.attempts)
        changed = replace(policy, **given)
        known = _applied[policy.name] = (policy, overrides, changed)
    return known[2]


def lane(queue: str, priority: Priority) -> str:
    """Returns the lane of ``queue`` for this priority: ``webhooks:high``, ``webhooks``, ``webhooks:low``."""
    return queue if priority == "normal" else f"{queue}:{priority}"


def priority_of(name: str) -> Priority:
    """Returns the priority of the lane ``name``."""
    return next((priority for priority in PRIORITIES if name.endswith(f":{priority}")), "normal")


def base_queue(name: str) -> str:
    """Returns the queue of the lane ``name``."""
    base, _, priority = name.rpartition(":")
    return base if priority in PRIORITIES and base else name


def lanes(queue: str) -> list[str]:
    """Returns the three lanes of ``queue``, highest priority first."""
    return [lane(queue, priority) for priority in PRIORITIES]


def lanes_of(name: str | None) -> list[str]:
    """Returns the lanes of the queue ``name``, the single lane ``name`` (``webhooks:high``), or by default all lanes.

    Raises:
        UnknownQueue: there is no such queue.
    """
    if name is None:
        return [each for queue in _POLICIES for each in lanes(queue)]
    queue = get_policy(name).name
    if base_queue(name) == name:
        return lanes(queue)
    return [lane(queue, priority_of(name))]


def lanes_in_order(queues: list[str] | None = None) -> list[str]:
    """Returns all lanes in the order in which a worker claims jobs: high lanes first, then normal, then low."""
    names = queues if queues is not None else list(_POLICIES)
    return [lane(name, priority) for priority in PRIORITIES for name in names]


def load(reference: str) -> Callable[..., Any]:
    """Imports and returns the function ``module:function`` of a policy. Never call it with a value read from Redis."""
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = operator.attrgetter(name)(importlib.import_module(module))
    return function


def import_registrations() -> None:
    """Imports the app's modules in RQJOBS_IMPORT, which register queues, jobs and export sources.

    Raises:
        InvalidSettings: a module does not exist, or its import fails; the message names file and line.
    """
    for module in get_settings().rqjobs_import:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise InvalidSettings(
                [f"RQJOBS_IMPORT: {module}: {error}; is it in this folder, or its folder on PYTHONPATH?"]
            ) from error
        except RQJobsError:
            raise
        except Exception as error:
            where = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}{_line_of(error)}"
            raise InvalidSettings([f"RQJOBS_IMPORT: {module} cannot be imported: {where}"]) from error


def _line_of(error: Exception) -> str:
    """Returns the position in the app's code at which an import failed: `` (app/jobs.py, line 3)``."""
    if isinstance(error, SyntaxError):  # its text names the file and the line
        return ""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
