"""The worker loop: one thread that claims jobs, passes them to their runners, and writes outcomes, in batches."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import redis
from rq.defaults import RQ_KEY_PREFIX

from rqjobs.broker import keys
from rqjobs.broker.holds import log_changes
from rqjobs.broker.rq_schema import key
from rqjobs.config.logs import event
from rqjobs.config.settings import Settings
from rqjobs.worker.acknowledged import AcknowledgedOutcome, AcknowledgedOutcomes
from rqjobs.worker.batching import Batching
from rqjobs.worker.claimed_job import ClaimedJob
from rqjobs.worker.outcomes import Forced, Held, LeftToLease, Released, Unavailable, WrittenByRQ
from rqjobs.worker.protocol import Claims, WorkerProtocol, read_moved, read_written
from rqjobs.worker.queue_state import BATCH_SIZE, QueueState
from rqjobs.worker.raw_connection import RESPONSE_TIMEOUT, RawConnection, Refused, WakeUp
from rqjobs.worker.request import Request

MAX_WRITE_BYTES = 8 * 2**20
"""The most characters of results and errors in one call to Redis, so that it does not block for long; a larger result
is written alone."""

RECORD_AFTER = 0.25
"""Seconds after which a job of a busy loop gets RQ's record of its execution. A job that ends earlier costs Redis half
as much."""

BURST_STAY = 5.0
"""Seconds that a burst waits for held jobs, so that a rate limit of a few seconds does not leave them unrun."""

POLL_INTERVAL = 1.0
"""Seconds after which the queues are polled without a notification, for jobs that RQ moves without one."""

SCHEDULE_INTERVAL = 30.0
"""Seconds between two polls of delayed jobs if Redis pushes changes; otherwise they are polled every
``POLL_INTERVAL``."""

OUTAGE = (OSError, redis.exceptions.RedisError, Refused)


@dataclass
class Limits:
    """The conditions under which the loop ends without a signal."""

    burst: bool = False
    max_jobs: int | None = None


@dataclass
class WorkerLoop:
    """Owns the connection to Redis. The methods that other threads may call come first."""

    connect: Callable[[], redis.Redis]
    worker: str
    record_ttl: int
    """Seconds that Redis keeps the record of a worker without a heartbeat."""
    queues: dict[str, QueueState]
    settings: Settings
    limits: Limits
    finish_by_rq: Callable[[ClaimedJob | AcknowledgedOutcome], None]
    """Writes the outcome of a job with dependents by RQ's own methods, in another thread."""
    enqueue_by_rq: Callable[[str, str], None]
    """Enqueues a delayed job (lane and id) with RQ's own rate limit by RQ's own methods, in another thread."""
    on_command: Callable[[Mapping[str, Any]], None]
    log_settled: Callable[[ClaimedJob], None]
    on_written: Callable[[ClaimedJob], None] | None
    """Receives the jobs whose outcomes Redis has accepted; None if there is no hook for them."""
    report: Callable[..., None]
    """Stores the progress of a job, given its id and a mapping, for ``Attempt.report``."""
    leading: frozenset[str] = frozenset()
    """The lanes whose delayed jobs this worker moves; set by the maintenance."""
    claimed: dict[str, ClaimedJob] = field(default_factory=dict)
    """The claimed jobs whose outcomes are not written yet, by execution."""
    outage: bool = False

    def __post_init__(self) -> None:
        self.wake_up = WakeUp()
        self.batching = Batching(self.queues.values())
        self.protocol = WorkerProtocol(
            self.worker,
            self.record_ttl,
            {name: queue.policy for name, queue in self.queues.items()},
            self.settings,
            self.report,
        )
        self._left_to_lease: set[str] = set()  # executions of jobs that may have run
        self._moving: set[str] = set()  # delayed jobs that RQ's own methods are enqueueing
        self._stop_reasons: deque[str] = deque()  # reasons to stop that are not logged yet
        self._outbox: deque[ClaimedJob] = deque()
        self._unwritten: list[ClaimedJob] = []
        self._in_flight: deque[Request] = deque()
        # The times at which jobs get RQ's record, with executions instead of jobs, because most have ended by then.
        self._without_record: deque[tuple[float, list[str]]] = deque()
        self._acknowledged = AcknowledgedOutcomes()
        self._replicas = True
        self._sleeping = False
        self._stop_at: float | None = None
        self._held_until: dict[str, float] = {}  # in a burst: jobs that were held back, and until when
        self._claimed_count = 0
        self._schedule_at = 0.0
        self._poll_at = 0.0
        self._rate_at = float("inf")
        self._trial_at = float("inf")
        self._scheduled_lanes: frozenset[str] = frozenset()

    # Called by other threads

    def settled(self, job: ClaimedJob) -> None:
        """Queues the outcome of ``job`` for writing."""
        self._outbox.append(job)
        if self._sleeping and len(self._outbox) >= self.batching.wake_up_size:
            self._sleeping = False
            self.wake_up.set()

    def enqueued(self, job_id: str) -> None:
        """Records that RQ's own methods have enqueued a delayed job, or have failed to."""
        self._notify_queues()
        self._moving.discard(job_id)
        self.wake_up.set()

    def finished(self, job: ClaimedJob | AcknowledgedOutcome) -> None:
        """Records that RQ's own methods have written the outcome of a job that has dependents."""
        self._notify_queues()
        if self._replicas:
            self._acknowledged.add(time.monotonic(), [job])
        self.claimed.pop(job.execution, None)
        self.wake_up.set()

    def leave_to_lease(self, job: ClaimedJob | AcknowledgedOutcome) -> None:
        """Leaves ``job`` to its lease, because Redis refuses its outcome or another worker has it.

        The rescuer decides after the lease has expired.
        """
        self._left_to_lease.add(job.execution)
        self.claimed.pop(job.execution, None)

    def stop(self, grace: float, why: str) -> None:
        """Claims no more jobs; releases those that have not ended after ``grace`` seconds.

        A second call shortens the time.

        It logs nothing itself, because a signal handler may interrupt the writing of a log line.
        """
        at = time.monotonic() + grace
        self._stop_at = at if self._stop_at is None else min(at, self._stop_at)
        self._stop_reasons.append(why)
        self.wake_up.set()

    @property
    def out_of_time(self) -> bool:
        """Whether the grace period is over."""
        return self._stop_at is not None and time.monotonic() > self._stop_at

    @property
    def stopping(self) -> bool:
        """Whether the loop claims no more jobs."""
        return self._stop_at is not None

    def _notify_queues(self) -> None:
        for queue in self.queues.values():
            queue.notified = True

    # The loop

    def run(self) -> None:
        """Runs until it is stopped or its limits are reached; reconnects after every outage of Redis."""
        failures = 0
        while True:
            connection = None
            try:
                connection = self._open()
                if self.outage:
                    event(logging.WARNING, "redis is back", unwritten=len(self._unwritten) + len(self._outbox))
                self.outage, failures = False, 0
                self._serve(connection)
            except OUTAGE as error:
                if not self.outage:
                    event(logging.ERROR, "redis is away", error=str(error) or type(error).__name__)
                self.outage = True
                self._forget_requests()
                if self.out_of_time:
                    event(logging.ERROR, "stopped without redis", left_to_their_leases=len(self.claimed))
                    return
                failures += 1
                self.wake_up.wait(min(0.05 * 2**failures, 1.0))
            else:
                return
            finally:
                if connection is not None:
                    with contextlib.suppress(Exception):
                        connection.close()

    def _open(self) -> RawConnection:
        prefixes = (
            key("queue", ""),
            key("scheduled", ""),
            key("suspended"),
            keys.PAUSED,
            keys.HOLDS,
            keys.group_turns(""),
        )
        connection = RawConnection(self.connect(), prefixes, key("pubsub", self.worker), self.wake_up)
        self._notify_queues()
        self._schedule_at = 0.0
        self._release_unknown(connection)
        return connection

    def _release_unknown(self, connection: RawConnection) -> None:
        """Releases the jobs that Redis has given this worker in a response that was lost; they have not run."""
        (members,) = connection.call_each([("SMEMBERS", key("worker", self.worker, "executions"))])
        unknown = [member.decode(errors="replace").rpartition(":") for member in members or ()]
        known = self._left_to_lease.union(self.claimed)
        lost = [(job_id, execution) for job_id, _, execution in unknown if execution not in known]
        if outcomes := self._acknowledged.find([execution for _, execution in lost]):
            self._write_again(connection, outcomes)
            again = {kept.execution for kept in outcomes}
            lost = [(job_id, execution) for job_id, execution in lost if execution not in again]
        if not lost:
            return
        origins = connection.call_each([("HGET", key("job", job_id), "origin") for job_id, _ in lost])
        lanes = ["" if origin is None else origin.decode(errors="replace") for origin in origins]
        words = self.protocol.release((*job, lane) for job, lane in zip(lost, lanes, strict=True))
        if words:
            connection.call([connection.script("finish", words)])
            event(logging.WARNING, "jobs released whose claim was lost with the connection", count=len(lost))

    def _write_again(self, connection: RawConnection, outcomes: list[AcknowledgedOutcome]) -> None:
        """Writes outcomes again that a failover has lost: for the new primary these jobs are still running."""
        event(logging.WARNING, "outcomes written again that a failover had lost", count=len(outcomes))
        for start in range(0, len(outcomes), BATCH_SIZE):
            batch = outcomes[start : start + BATCH_SIZE]
            responses = connection.call([connection.script("finish", self.protocol.finish(batch))])
            written = read_written(responses[0])
            log_changes(written.hold_changes)
            for number in written.with_dependents:
                self.finish_by_rq(batch[number])
            self._left_to_lease.update(
                batch[number].execution for number in (*written.lost, *written.refused, *written.own_failures)
            )

    def _forget_requests(self) -> None:
        """Resets the requests in flight after a broken connection.

        Their outcomes are written again, and their claims no longer count as in use.
        """
        while self._in_flight:
            request = self._in_flight.pop()
            self._unwritten[:0] = request.batch
            for queue, count in request.claims:
                queue.claimed([], count)
                self._claimed_count -= count

    def _serve(self, connection: RawConnection) -> None:
        while True:
            self._drain()
            now = time.monotonic()
            if self._stop_at is not None:
                self._shut_down(now)
            request = (
                self._next_request(connection, now) if len(self._in_flight) < self.batching.max_in_flight else None
            )
            if request is not None:
                self._in_flight.append(request)
                connection.send(request.commands)
            self.batching.measure(now)
            if self._in_flight:
                self._read_responses(connection, now)
            elif self._finished():
                return
            else:
                self._sleep(connection, now)
            self._read_pushed(connection.pushed_messages(time.monotonic()))
            self._replicas = connection.replicas

    def _next_request(self, connection: RawConnection, now: float) -> Request | None:
        """Returns the commands that are due now; None if there are none."""
        request = Request(now)
        if self._unwritten and (self.stopping or self.batching.is_time_to_write(now, len(self._unwritten))):
            self.batching.written(now)
            request.batch = _within(MAX_WRITE_BYTES, self._unwritten[:BATCH_SIZE])
            del self._unwritten[: len(request.batch)]
            request.add(
                connection.script("finish", self.protocol.finish(request.batch)), partial(self._written, request.batch)
            )
        self._add_claims(request, now)
        if request.claims:
            parks = not self.limits.burst  # a burst waits for held deliveries, so it does not park them
            counts = {queue.policy.name: count for queue, count in request.claims}
            words = self.protocol.reserve(counts, records=not self.batching.busy, parks=parks)
            record_at = now + RECORD_AFTER if self.batching.busy else None
            request.add(connection.script("reserve", words), partial(self._hand_out, request.claims, record_at))
        if bare := self._due_for_record(now):
            request.add(connection.script("renew", [RQ_KEY_PREFIX, *self.protocol.renew(bare)]), _nothing)
        if self.leading and (now >= self._schedule_at or self._scheduled_lanes != self.leading):
            self._scheduled_lanes, self._schedule_at = self.leading, float("inf")
            scheduled = partial(self._scheduled, SCHEDULE_INTERVAL if connection.pushes else POLL_INTERVAL)
            request.add(connection.script("schedule", self.protocol.schedule(self._scheduled_lanes)), scheduled)
        return request if request.commands else None

    def _read_responses(self, connection: RawConnection, now: float) -> None:
        """Waits for the oldest responses; only briefly if a busy loop may send another request."""
        request = self._in_flight[0]
        count = len(request.commands)
        if len(self._in_flight) < self.batching.max_in_flight and not connection.ready(count):
            self._wait(connection, self.batching.poll_timeout(now))
            if not connection.ready(count):
                if now - request.sent > RESPONSE_TIMEOUT:
                    raise TimeoutError(f"Redis was silent for {RESPONSE_TIMEOUT:.0f} s")
                return
        responses = connection.responses(count)
        self._in_flight.popleft()
        self.batching.answered(time.monotonic())
        for handle, response in zip(request.handlers, responses, strict=True):
            handle(response)

    def _sleep(self, connection: RawConnection, now: float) -> None:
        if self.batching.busy:
            self._wait(connection, self.batching.poll_timeout(now))
            return
        until = min(
            self._poll_at,
            self._rate_at,
            self._trial_at,
            self.batching.next_measurement,
            self._schedule_at if self.leading else self._poll_at,
        )
        if self._without_record:
            until = min(until, self._without_record[0][0])
        if self._stop_at is not None:
            until = min(until, max(self._stop_at, now + 0.001))
        self._wait(connection, until - now)
        if time.monotonic() >= self._poll_at:
            self._poll_at = time.monotonic() + POLL_INTERVAL
            self._notify_queues()

    def _wait(self, connection: RawConnection, seconds: float) -> None:
        """Sleeps until enough outcomes are queued, or data from Redis arrives."""
        self._sleeping = True
        if len(self._outbox) < self.batching.wake_up_size:  # otherwise they came before the flag was set
            connection.sleep(seconds)
        self._sleeping = False

    def _read_pushed(self, messages: Iterable[list[Any]]) -> None:
        """Handles changes of watched keys, and RQ's commands to this worker."""
        for message in messages:
            if message[0] == b"message":
                try:
                    self.on_command(dict(json.loads(message[2])))
                except Exception:  # any client may publish any text; it must not end the loop
                    logging.getLogger("rqjobs").exception("a command to this worker failed")
            elif message[0] == b"invalidate":
                changed = message[1] or [b""]
                if any(name.startswith(b"%b:scheduled:" % RQ_KEY_PREFIX.encode()) for name in changed):
                    self._schedule_at = 0.0
                if any(b":scheduled:" not in name for name in changed):
                    self._notify_queues()

    # Claiming jobs

    def _add_claims(self, request: Request, now: float) -> None:
        """Adds the claims to the request: how many jobs of each queue."""
        if self._stop_at is not None:
            return
        if now >= self._rate_at:
            self._rate_at = float("inf")
            self._notify_queues()
        if now >= self._trial_at:
            self._trial_at = float("inf")
            self._notify_queues()
        left = sys.maxsize if self.limits.max_jobs is None else self.limits.max_jobs - self._claimed_count
        min_claim = self.batching.min_claim(now)
        for queue in self.queues.values():
            count = queue.claimable(left)
            if count >= min_claim:
                left -= count
                queue.requested(count)
                self._claimed_count += count
                request.claims.append((queue, count))

    def _hand_out(self, claims: list[tuple[QueueState, int]], record_at: float | None, response: list[Any]) -> None:
        """Passes the claimed jobs to their runners.

        They get RQ's records at ``record_at``; None if they have them already.
        """
        claimed = self.protocol.read_claims(response)
        wait, trial = claimed.rate_wait, claimed.trial_wait
        if wait >= 0:
            self._rate_at = time.monotonic() + max(wait, 0.001)
        self._trial_at = time.monotonic() + max(trial, 0.001) if trial >= 0 else float("inf")
        self._submit(claims, record_at, claimed)
        if claimed.parked:  # more jobs may wait, and Redis does not push a client's own changes to it
            self._schedule_at = 0.0
            self._notify_queues()

    def _submit(self, claims: list[tuple[QueueState, int]], record_at: float | None, claimed: Claims) -> None:
        found: dict[str, list[ClaimedJob]] = {}
        executions = []
        for job in claimed.jobs:
            self.claimed[job.execution] = job
            executions.append(job.execution)
            self._held_until.pop(job.job_id, None)
            found.setdefault(job.policy.name, []).append(job)
        if record_at is not None and executions:
            self._without_record.append((record_at, executions))
        for queue, count in claims:
            jobs = found.get(queue.policy.name, [])
            self._claimed_count += len(jobs) - count
            queue.claimed(jobs, count)
            queue.may_have_jobs = queue.may_have_jobs or claimed.full

    def _due_for_record(self, now: float) -> list[ClaimedJob]:
        """Returns the running jobs that are due to get RQ's records."""
        if not self._without_record or self._without_record[0][0] > now:
            return []
        _when, executions = self._without_record.popleft()
        jobs = [self.claimed[execution] for execution in executions if execution in self.claimed]
        return [job for job in jobs if not job.settled]

    # Writing back

    def _drain(self) -> None:
        while True:
            try:
                job = self._outbox.popleft()
            except IndexError:
                return
            queue = self.queues[job.policy.name]
            queue.in_use -= 1
            queue.settled += 1
            queue.bytes -= len(job.data)
            self.log_settled(job)
            if isinstance(job.outcome, WrittenByRQ):
                self._notify_queues()  # RQ's methods may have enqueued dependents, or jobs that waited for its slot
                self.claimed.pop(job.execution, None)
            elif isinstance(job.outcome, LeftToLease):
                self.leave_to_lease(job)
            else:
                self._unwritten.append(job)

    def _written(self, batch: list[ClaimedJob], response: list[Any]) -> None:
        written = read_written(response)
        refused, parents, own_failures = written.refused, written.with_dependents, written.own_failures
        if written.lost:
            ids = " ".join(batch[number].job_id for number in written.lost)
            event(logging.WARNING, "leases were lost: others run these jobs", ids=ids)
        if self._replicas:
            left = {*written.lost, *parents, *refused, *own_failures}
            self._acknowledged.add(time.monotonic(), [job for n, job in enumerate(batch) if n not in left])
        requeued = False
        for number, job in enumerate(batch):
            assert job.outcome is not None
            if number in refused:
                self._replace_refused(job, refused[number])
            elif number in parents:
                self.finish_by_rq(job)
            elif number in own_failures:
                job.count_as_failure()
                self._unwritten.append(job)
            else:
                self.claimed.pop(job.execution, None)
                if self.on_written is not None and number not in written.lost:
                    self.on_written(job)
            if self.limits.burst and isinstance(job.outcome, Held):
                self._held_until[job.job_id] = time.time() + job.outcome.wait
            requeued = requeued or job.outcome.requeues
        log_changes(written.hold_changes)
        if requeued or written.hold_changes or written.group_freed:  # Redis does not push a client's own changes to it
            self._schedule_at = 0.0
            self._notify_queues()

    def _replace_refused(self, job: ClaimedJob, why: str) -> None:
        """Makes a job dead whose outcome Redis refuses, with that as the reason, or leaves it to its lease."""
        assert job.outcome is not None
        event(logging.ERROR, "redis refused an outcome", id=job.job_id, outcome=job.outcome.name, error=why)
        if isinstance(job.outcome, Forced | Released | Held | Unavailable):
            self.leave_to_lease(job)
        else:
            job.outcome_refused(why)
            self._unwritten.append(job)

    def _scheduled(self, longest: float, response: list[Any]) -> None:
        moved = read_moved(response)
        wait = moved.next_due
        due = time.monotonic() + (min(wait, longest) if wait >= 0 else longest)
        self._schedule_at = min(
            self._schedule_at, due
        )  # set to infinity when the request was sent: a time pushed since then is newer
        if moved.moved:
            self._notify_queues()
        for lane, job_id in moved.limited:
            self._moving.add(job_id)
            self.enqueue_by_rq(lane, job_id)

    # Ending

    def _finished(self) -> bool:
        if self.claimed or self._outbox or self._unwritten or self._moving:
            return False
        if self._stop_at is not None:
            return True
        if self.limits.max_jobs is not None and self._claimed_count >= self.limits.max_jobs:
            return True
        if (
            not self.limits.burst
            or self._rate_at < float("inf")
            or not all(queue.empty for queue in self.queues.values())
        ):
            return False
        if self._trial_at < time.monotonic() + BURST_STAY:
            return False
        now = time.time()
        return not any(now - 1 < turn < now + BURST_STAY for turn in self._held_until.values())

    def _shut_down(self, now: float) -> None:
        """Releases the jobs that have not begun; at the end of the grace period all jobs."""
        while self._stop_reasons:
            event(logging.INFO, "worker stopping", why=self._stop_reasons.popleft())
        released = [job for queue in self.queues.values() for job in queue.runner.waiting()]
        over = self._stop_at is not None and now >= self._stop_at
        if over:
            released += list(self.claimed.values())
        for job in released:
            if job.settle(Released()):
                self._outbox.append(job)
        if over:  # after their outcomes are set, so that the interruption does not count as a failure
            for queue in self.queues.values():
                queue.runner.stop()
        if released:
            self._drain()


def _nothing(_answer: Any) -> None:
    """Ignores a response."""


def _within(most: int, batch: list[ClaimedJob]) -> list[ClaimedJob]:
    """Returns the first jobs of ``batch`` whose outcomes have at most ``most`` bytes in total, at least one job."""
    size = 0
    for number, job in enumerate(batch):
        assert job.outcome is not None
        size += job.outcome.size if number else 0
        if size > most:
            return batch[:number]
    return batch
