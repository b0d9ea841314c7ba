"""The engine's loop: one thread that reserves, hands out, and writes back, everything in batches."""

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
from rqjobs.worker.acknowledged import Ending, Endings
from rqjobs.worker.batching import Pace
from rqjobs.worker.claimed_job import Outcome, Taken
from rqjobs.worker.protocol import Orders, Question
from rqjobs.worker.queue_state import BATCH, Line
from rqjobs.worker.raw_connection import SILENCE, Bell, Refused, Wire

MOST_WRITTEN = 8 * 2**20
"""Bytes of outcomes that one call to Redis writes; a larger one is written alone."""

BRIEF = 0.25
"""Seconds within which a job of a busy loop may end without RQ's record of its execution: half of its cost in Redis."""

STAY = 5.0
"""Seconds that a burst stays for jobs whose turn comes by then: a provider's pace is no reason to leave them."""

POLL = 1.0
"""Seconds after which the queues are looked at although nobody said that there is something."""

RARELY = 30.0
"""Seconds after which the scheduled jobs are, where Redis tells of changes; where it does not, ``POLL``."""

OUTAGE = (OSError, redis.exceptions.RedisError, Refused)


@dataclass
class Limits:
    """When the loop ends by itself."""

    burst: bool = False
    max_jobs: int | None = None


@dataclass
class Dispatcher:
    """Owns the engine's connection to Redis. Only :meth:`settled` and :meth:`stop` are for other threads."""

    connect: Callable[[], redis.Redis]
    worker: str
    record_ttl: int
    """Seconds that Redis keeps the record of a worker that says nothing more."""
    lines: dict[str, Line]
    settings: Settings
    limits: Limits
    finish_by_rq: Callable[[Taken | Ending], None]
    """Finishes, by RQ's own methods and elsewhere, a job that has dependents."""
    enqueue_by_rq: Callable[[str, str], None]
    """Enqueues, by RQ's own methods and elsewhere, a scheduled job of a lane that has RQ's own rate limit."""
    on_command: Callable[[Mapping[str, Any]], None]
    log_settled: Callable[[Taken], None]
    report: Callable[..., None]
    """Stores the progress of a job, for ``Attempt.report``."""
    leading: frozenset[str] = frozenset()
    """The lanes whose scheduled jobs are ours to move; the keeper sets it."""
    taken: dict[str, Taken] = field(default_factory=dict)
    """Everything reserved and not yet written back, by execution."""
    outage: bool = False

    def __post_init__(self) -> None:
        self.bell = Bell()
        self.pace = Pace(self.lines.values())
        self.orders = Orders(self.worker, self.record_ttl, self.lines, self.settings)
        self._left: set[str] = set()  # executions that are left to their leases, since they may have run
        self._moving: set[str] = set()  # scheduled jobs that RQ's own methods enqueue just now
        self._why: deque[str] = deque()  # why it is to stop, not yet logged
        self._outbox: deque[Taken] = deque()
        self._unwritten: list[Taken] = []
        self._flying: deque[Question] = deque()
        self._bare: deque[tuple[float, list[str]]] = deque()  # executions, for most of their jobs have ended by then
        self._endings = Endings()
        self._replicas = True
        self._sleeping = False
        self._stop_at: float | None = None
        self._turns: dict[str, float] = {}  # in a burst: jobs that were held back, and until when
        self._reserved = 0
        self._due = 0.0
        self._poll_at = 0.0
        self._rate_at = float("inf")
        self._trial_at = float("inf")
        self._led: frozenset[str] = frozenset()

    # What other threads call

    def settled(self, job: Taken) -> None:
        """``job`` has its outcome: write it."""
        self._outbox.append(job)
        if self._sleeping and len(self._outbox) >= self.pace.enough:
            self._sleeping = False
            self.bell.ring()

    def enqueued(self, job_id: str) -> None:
        """RQ's own methods have enqueued a scheduled job, or could not."""
        self._look_again()
        self._moving.discard(job_id)
        self.bell.ring()

    def finished(self, job: Taken | Ending) -> None:
        """RQ's own methods have written the outcome of a job that has dependents."""
        self._look_again()
        if self._replicas:
            self._endings.add(time.monotonic(), [job])
        self.taken.pop(job.execution, None)
        self.bell.ring()

    def leave(self, job: Taken | Ending) -> None:
        """``job`` has no outcome that Redis takes, or another worker has it: whoever sees its lease end decides."""
        self._left.add(job.execution)
        self.taken.pop(job.execution, None)

    def stop(self, grace: float, why: str) -> None:
        """Take no more; finish within ``grace`` seconds, hand the rest back. A second call shortens the grace.

        Logs nothing itself: a signal's handler may run in the middle of a line that is being logged.
        """
        at = time.monotonic() + grace
        self._stop_at = at if self._stop_at is None else min(at, self._stop_at)
        self._why.append(why)
        self.bell.ring()

    @property
    def out_of_time(self) -> bool:
        """Whether the grace period is over."""
        return self._stop_at is not None and time.monotonic() > self._stop_at

    @property
    def stopping(self) -> bool:
        """Whether it takes no more."""
        return self._stop_at is not None

    def _look_again(self) -> None:
        for line in self.lines.values():
            line.called = True

    # The loop

    def run(self) -> None:
        """Works until it is stopped or its limits are reached. Outlives every outage of Redis."""
        failures = 0
        while True:
            wire = None
            try:
                wire = self._open()
                if self.outage:
                    event(logging.WARNING, "redis is back", unwritten=len(self._unwritten) + len(self._outbox))
                self.outage, failures = False, 0
                self._serve(wire)
            except OUTAGE as error:
                if not self.outage:
                    event(logging.ERROR, "redis is away", error=str(error) or type(error).__name__)
                self.outage = True
                self._forget_questions()
                if self.out_of_time:
                    event(logging.ERROR, "stopped without redis", left_to_their_leases=len(self.taken))
                    return
                failures += 1
                self.bell.wait(min(0.05 * 2**failures, 1.0))
            else:
                return
            finally:
                if wire is not None:
                    with contextlib.suppress(Exception):
                        wire.close()

    def _open(self) -> Wire:
        prefixes = (key("queue", ""), key("scheduled", ""), key("suspended"), keys.PAUSED, keys.HOLDS)
        wire = Wire(self.connect(), prefixes, key("pubsub", self.worker), self.bell)
        self._look_again()
        self._due = 0.0
        self._give_back_unknown(wire)
        return wire

    def _give_back_unknown(self, wire: Wire) -> None:
        """Jobs that were reserved for us in an answer that never reached us: nobody has run them."""
        (members,) = wire.call_each([("SMEMBERS", key("worker", self.worker, "executions"))])
        unknown = [member.decode(errors="replace").rpartition(":") for member in members or ()]
        known = self._left.union(self.taken)
        lost = [(job_id, execution) for job_id, _, execution in unknown if execution not in known]
        if endings := self._endings.find([execution for _, execution in lost]):
            self._write_again(wire, endings)
            again = {ending.execution for ending in endings}
            lost = [(job_id, execution) for job_id, execution in lost if execution not in again]
        if not lost:
            return
        origins = wire.call_each([("HGET", key("job", job_id), "origin") for job_id, _ in lost])
        lanes = ["" if origin is None else origin.decode(errors="replace") for origin in origins]
        words = self.orders.give_back((*job, lane) for job, lane in zip(lost, lanes, strict=True))
        if words:
            wire.call([wire.script("finish", words)])
            event(logging.WARNING, "jobs given back that redis reserved while it went away", count=len(lost))

    def _write_again(self, wire: Wire, endings: list[Ending]) -> None:
        """A failover has lost these outcomes: the new primary takes the jobs for running."""
        event(logging.WARNING, "outcomes written again that a failover had lost", count=len(endings))
        for start in range(0, len(endings), BATCH):
            batch = endings[start : start + BATCH]
            answers = wire.call([wire.script("finish", self.orders.finish(batch))])
            lost, parents, refused, charged, changes = answers[0]
            log_changes(changes)
            for number in parents:
                self.finish_by_rq(batch[number])
            self._left.update(batch[number].execution for number in (*lost, *refused[::2], *charged))

    def _forget_questions(self) -> None:
        """The connection broke: what was to be written is written again, what was asked for is given back."""
        while self._flying:
            question = self._flying.pop()
            self._unwritten[:0] = question.batch
            for line, budget in question.asked:
                line.take([], budget)
                self._reserved -= budget

    def _serve(self, wire: Wire) -> None:
        while True:
            self._drain()
            now = time.monotonic()
            if self._stop_at is not None:
                self._wind_down(now)
            question = self._question(wire, now) if len(self._flying) < self.pace.questions else None
            if question is not None:
                self._flying.append(question)
                wire.send(question.commands)
            self.pace.look(now)
            if self._flying:
                self._hear(wire, now)
            elif self._finished():
                return
            else:
                self._sleep(wire, now)
            self._listen(wire.listen(time.monotonic()))
            self._replicas = wire.replicas

    def _question(self, wire: Wire, now: float) -> Question | None:
        """What there is to be said to Redis now."""
        question = Question(now)
        if self._unwritten and (self.stopping or self.pace.is_time_to_write(now, len(self._unwritten))):
            self.pace.wrote(now)
            question.batch = _within(MOST_WRITTEN, self._unwritten[:BATCH])
            del self._unwritten[: len(question.batch)]
            question.add(
                wire.script("finish", self.orders.finish(question.batch)), partial(self._written, question.batch)
            )
        self._ask(question, now)
        if question.asked:
            parks = not self.limits.burst  # which stays for who was held back
            words = self.orders.reserve(question.asked, records=not self.pace.fast, parks=parks)
            brief = now + BRIEF if self.pace.fast else None
            question.add(wire.script("reserve", words), partial(self._hand_out, question.asked, brief))
        if bare := self._without_record(now):
            question.add(wire.script("renew", [RQ_KEY_PREFIX, *self.orders.renew(bare)]), _nothing)
        if self.leading and (now >= self._due or self._led != self.leading):
            self._led, self._due = self.leading, float("inf")
            scheduled = partial(self._scheduled, RARELY if wire.pushes else POLL)
            question.add(wire.script("schedule", self.orders.schedule(self._led)), scheduled)
        return question if question.commands else None

    def _hear(self, wire: Wire, now: float) -> None:
        """Waits for the oldest answers; a busy loop with a question to spare waits for something to ask as well."""
        question = self._flying[0]
        count = len(question.commands)
        if len(self._flying) < self.pace.questions and not wire.ready(count):
            self._doze(wire, self.pace.rest(now))
            if not wire.ready(count):
                if now - question.sent > SILENCE:
                    raise TimeoutError(f"Redis was silent for {SILENCE:.0f} s")
                return
        answers = wire.answers(count)
        self._flying.popleft()
        self.pace.heard(time.monotonic())
        for heard, answer in zip(question.heard, answers, strict=True):
            heard(answer)

    def _sleep(self, wire: Wire, now: float) -> None:
        if self.pace.fast:
            self._doze(wire, self.pace.rest(now))
            return
        until = min(
            self._poll_at,
            self._rate_at,
            self._trial_at,
            self.pace.next_look,
            self._due if self.leading else self._poll_at,
        )
        if self._bare:
            until = min(until, self._bare[0][0])
        if self._stop_at is not None:
            until = min(until, max(self._stop_at, now + 0.001))
        self._doze(wire, until - now)
        if time.monotonic() >= self._poll_at:
            self._poll_at = time.monotonic() + POLL
            self._look_again()

    def _doze(self, wire: Wire, seconds: float) -> None:
        """Sleeps until there are outcomes enough, or Redis says something."""
        self._sleeping = True
        if len(self._outbox) < self.pace.enough:  # else they came before anybody knew that we sleep
            wire.sleep(seconds)
        self._sleeping = False

    def _listen(self, messages: Iterable[list[Any]]) -> None:
        """Redis says which of the watched keys have changed, and passes on commands to this worker."""
        for message in messages:
            if message[0] == b"message":
                try:
                    self.on_command(dict(json.loads(message[2])))
                except Exception:  # whatever somebody published, the loop goes on
                    logging.getLogger("rqjobs").exception("a command to this worker failed")
            elif message[0] == b"invalidate":
                changed = message[1] or [b""]
                if any(name.startswith(b"%b:scheduled:" % RQ_KEY_PREFIX.encode()) for name in changed):
                    self._due = 0.0
                if any(b":scheduled:" not in name for name in changed):
                    self._look_again()

    # Taking jobs

    def _ask(self, question: Question, now: float) -> None:
        """For how many jobs of each queue Redis is to be asked."""
        if self._stop_at is not None:
            return
        if now >= self._rate_at:
            self._rate_at = float("inf")
            self._look_again()
        if now >= self._trial_at:
            self._trial_at = float("inf")
            self._look_again()
        left = sys.maxsize if self.limits.max_jobs is None else self.limits.max_jobs - self._reserved
        least = self.pace.least(now)
        for line in self.lines.values():
            budget = line.wants(left)
            if budget >= least:
                left -= budget
                line.ask(budget)
                self._reserved += budget
                question.asked.append((line, budget))

    def _hand_out(self, asked: list[tuple[Line, int]], brief: float | None, answer: list[Any]) -> None:
        """Jobs were reserved, until ``brief`` without RQ's records of their executions."""
        wait = float(answer[0])
        if wait >= 0:
            self._rate_at = time.monotonic() + max(wait, 0.001)
        trial = float(answer[3])
        self._trial_at = time.monotonic() + max(trial, 0.001) if trial >= 0 else float("inf")
        found: dict[str, list[Taken]] = {}
        executions = []
        for words in answer[4:]:
            lane, name = self.orders.lanes[words[2] - 1], self.orders.queues[words[2] - 1]
            try:
                job = Taken(words, lane, self.lines[name].policy, self.report)
            except UnicodeDecodeError as error:
                event(logging.ERROR, "refused: no job's id", id=repr(words[0][:100]), queue=lane, error=str(error))
                continue
            self.taken[job.execution] = job
            executions.append(job.execution)
            self._turns.pop(job.job_id, None)
            found.setdefault(name, []).append(job)
        if brief is not None and executions:
            self._bare.append((brief, executions))
        for line, budget in asked:
            jobs = found.get(line.policy.name, [])
            self._reserved += len(jobs) - budget
            line.take(jobs, budget)
            line.hungry = line.hungry or bool(answer[2])
        if answer[1]:  # parked at once: there may be more, and our own changes are not pushed to us
            self._due = 0.0
            self._look_again()

    def _without_record(self, now: float) -> list[Taken]:
        """The jobs that run for so long now that somebody may want to see their executions."""
        if not self._bare or self._bare[0][0] > now:
            return []
        _when, executions = self._bare.popleft()
        jobs = [self.taken[execution] for execution in executions if execution in self.taken]
        return [job for job in jobs if not job.settled]

    # Writing back

    def _drain(self) -> None:
        while True:
            try:
                job = self._outbox.popleft()
            except IndexError:
                return
            line = self.lines[job.policy.name]
            line.held -= 1
            line.settled += 1
            line.bytes -= len(job.data)
            self.log_settled(job)
            if job.outcome is not None and job.outcome.how == "written":
                self._look_again()  # RQ's methods may have enqueued its dependents, or who waited for its slot
                self.taken.pop(job.execution, None)
            elif job.outcome is not None and job.outcome.how == "left":
                self.leave(job)
            else:
                self._unwritten.append(job)

    def _written(self, batch: list[Taken], answer: list[Any]) -> None:
        lost, parents, errors, charged, changes = answer
        refused = dict(zip(errors[::2], errors[1::2], strict=True))
        if lost:
            ids = " ".join(batch[number].job_id for number in lost)
            event(logging.WARNING, "leases were lost: others run these jobs", ids=ids)
        if self._replicas:
            left = {*lost, *parents, *refused, *charged}
            self._endings.add(time.monotonic(), [job for n, job in enumerate(batch) if n not in left])
        retried = False
        for number, job in enumerate(batch):
            assert job.outcome is not None
            if number in refused:
                self._set_aside(job, refused[number].decode(errors="replace"))
            elif number in parents:
                self.finish_by_rq(job)
            elif number in charged:
                job.charge()
                self._unwritten.append(job)
            else:
                self.taken.pop(job.execution, None)
            if job.outcome.how == "hold" and self.limits.burst:
                self._turns[job.job_id] = time.time() + float(job.outcome.words[0] or 0)
            retried = retried or job.outcome.how in ("retry", "hold", "back", "away")
        log_changes(changes)
        if retried or changes:  # our own changes are not pushed to us
            self._due = 0.0
            self._look_again()

    def _set_aside(self, job: Taken, why: str) -> None:
        """Redis cannot write this outcome, now or ever: the job is dead with that reason, or left to its lease."""
        assert job.outcome is not None
        event(logging.ERROR, "redis refused an outcome", id=job.job_id, outcome=job.outcome.how, error=why)
        if job.outcome.how in ("bury", "back", "hold", "away"):
            self.leave(job)
        else:
            job.bury(why)
            self._unwritten.append(job)

    def _scheduled(self, longest: float, answer: list[Any]) -> None:
        wait, moved, others = float(answer[0]), answer[1], answer[2]
        due = time.monotonic() + (min(wait, longest) if wait >= 0 else longest)
        self._due = min(self._due, due)  # endless since the question: what was heard meanwhile is newer
        if moved:
            self._look_again()
        for position in range(0, len(others), 2):
            job_id = others[position + 1].decode(errors="replace")
            self._moving.add(job_id)
            self.enqueue_by_rq(others[position].decode(), job_id)

    # Ending

    def _finished(self) -> bool:
        if self.taken or self._outbox or self._unwritten or self._moving:
            return False
        if self._stop_at is not None:
            return True
        if self.limits.max_jobs is not None and self._reserved >= self.limits.max_jobs:
            return True
        if not self.limits.burst or self._rate_at < float("inf") or not all(line.empty for line in self.lines.values()):
            return False
        if self._trial_at < time.monotonic() + STAY:
            return False
        now = time.time()
        return not any(now - 1 < turn < now + STAY for turn in self._turns.values())

    def _wind_down(self, now: float) -> None:
        """Hands back what has not begun; at the end of the grace period everything."""
        while self._why:
            event(logging.INFO, "worker stopping", why=self._why.popleft())
        back = [job for line in self.lines.values() for job in line.runner.waiting()]
        over = self._stop_at is not None and now >= self._stop_at
        if over:
            back += list(self.taken.values())
        for job in back:
            if job.settle(Outcome("back")):
                self._outbox.append(job)
        if over:  # after the settling, so that their being ended is nobody's failure
            for line in self.lines.values():
                line.runner.stop()
        if back:
            self._drain()


def _nothing(_answer: Any) -> None:
    """For an answer that says nothing new."""


def _within(most: int, batch: list[Taken]) -> list[Taken]:
    """The first jobs of ``batch`` whose outcomes have ``most`` bytes together, one job at least."""
    size = 0
    for number, job in enumerate(batch):
        assert job.outcome is not None
        size += len(str(job.outcome.words[0])) if number else 0
        if size > most:
            return batch[:number]
    return batch
