"""One run: the world, the workers and the feeder are started, one fault is injected, and what came of it is counted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rqjobs import queue_health
from rqjobs.broker import connection
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.schema import init_database
from rqjobs.policies import import_registrations
from tests.chaos.counting import count
from tests.chaos.crew import ROOT, Crew
from tests.chaos.doubles import Outside
from tests.chaos.feeder import MIX
from tests.chaos.ledger import Counts, Ledger, StallWatch
from tests.chaos.proxy import Proxy
from tests.chaos.stores import Postgres, RedisServer, Sentinels
from tests.support import apptables


@dataclass(frozen=True)
class Scenario:
    """One fault, and the world that it happens in."""

    name: str
    inject: Callable[[Run], None]
    """Injects the fault and takes it away again, while jobs are enqueued."""
    short: bool = False
    """Whether it is one of ``make test``."""
    settings: dict[str, str] = field(default_factory=dict)
    mail: str = "smtp"
    database: str = "sqlite"
    redis: str = "one"
    """``one`` server, ``sentinel``, or ``proxy``: one server behind a proxy."""
    attempts: int | None = None
    """The attempts of jobs that have no fault of their own. With 1, the fault must cost none."""
    workers: int = 2
    memory: int | None = None
    """The limit of a worker's address space in bytes."""
    mix: dict[str, float] = field(default_factory=lambda: dict(MIX))
    feeder: dict[str, str] = field(default_factory=dict)
    """Variables of the feeder's environment alone."""
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot run on this machine."""
    drain: float = 300
    """Seconds in which all that was acknowledged must end after the fault."""


class Run:
    """One scenario at work."""

    def __init__(self, scenario: Scenario, folder: Path, *, long: bool, rate: float) -> None:
        self.scenario, self.folder, self.long, self.rate = scenario, folder, long, rate
        self.ledger = Ledger(folder)
        self.outside = Outside(folder, self.ledger)
        self.crew = Crew(folder, self.ledger)
        self.store = folder / "exports"
        self.store.mkdir()
        self.notes: list[str] = []
        self.faults: list[str] = []
        self.redis: RedisServer
        self.sentinels: Sentinels
        self.proxy: Proxy
        self.postgres: Postgres
        self.stack = contextlib.ExitStack()

    def times(self, long: int, short: int = 1) -> int:
        """How often something is done."""
        return long if self.long else short

    def pause(self, long: float, short: float) -> None:
        """Lets time pass."""
        time.sleep(long if self.long else short)

    def settings(self) -> dict[str, str]:
        """The environment of all processes of this run."""
        return {
            "RQJOBS_DATA": str(self.folder / "data"),
            "RQJOBS_IMPORT": "tests.chaos.jobs",
            "RQJOBS_LEASE": self._lease(),
            "RQJOBS_KEEP_FAILED": "100000",
            "EXPORT_URL": str(self.store),
            "CHAOS_EFFECTS": str(self.ledger.effects_file),
            **self.outside.settings(self.scenario.mail),
            **self.scenario.settings,
        }

    def _lease(self) -> str:
        """Short where workers are harmed; jobs of one attempt die of a lease that a busy machine loses."""
        return "20s" if self.scenario.attempts == 1 else "6s" if self.long else "4s"

    @contextlib.contextmanager
    def world(self, setenv: Callable[[str, str], None]) -> Iterator[None]:
        """Everything that jobs need; ``setenv`` sets a variable of this process for the test."""
        with self.stack:
            self.stack.enter_context(self.outside.running())
            url = self._redis()
            for name, value in {**self.settings(), "REDIS_URL": url, "DATABASE_URL": self._database()}.items():
                setenv(name, value)
            use_settings(None)
            self.stack.callback(connection.close_connection)
            import_registrations()
            init_database(get_engine())
            apptables.make(get_engine())
            apptables.add_contacts(get_engine(), 5)
            self.stack.enter_context(StallWatch(self.ledger))
            yield

    def _redis(self) -> str:
        """Starts Redis in the form that the scenario wants, and answers its REDIS_URL."""
        if self.scenario.redis == "sentinel":
            self.sentinels = Sentinels(self.folder)
            self.stack.callback(self.sentinels.stop)
            self.sentinels.start()
            return self.sentinels.url
        self.redis = RedisServer(self.folder / "redis")
        self.stack.callback(self.redis.stop)
        self.redis.start()
        if self.scenario.redis == "proxy":
            self.proxy = self.stack.enter_context(Proxy(self.redis.port))
            return str(self.proxy.url)
        return self.redis.url

    def _database(self) -> str:
        """Starts the database that the scenario wants, and answers its DATABASE_URL."""
        if self.scenario.database == "postgres":
            self.postgres = Postgres()
            self.stack.callback(self.postgres.stop)
            return self.postgres.url
        small = self.folder / "small"
        small.mkdir()
        if self.scenario.database == "small":
            self._mount(small)
        return f"sqlite:///{small}/chaos.db"

    def _mount(self, folder: Path) -> None:
        """A disk of a few megabytes at ``folder``."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], check=True)
        self.stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)

    @contextlib.contextmanager
    def feeding(self) -> Iterator[None]:
        """The feeder runs while the block does."""
        options = {"folder": str(self.folder), "rate": self.rate, "mix": self.scenario.mix,
                   "receiver": self.outside.url(), "attempts": self.scenario.attempts}  # fmt: skip
        with (self.folder / "feeder.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.feeder", json.dumps(options)],
                cwd=self.folder, stdout=log, stderr=log,
                env={**os.environ, "PYTHONPATH": str(ROOT), **self.scenario.feeder},
            )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                self.faults.append("the feeder did not end: a call hangs")
        if said := (self.folder / "feeder.log").read_text().strip():
            self.faults.append(f"the feeder logged: {said[-500:]}")

    def go(self) -> Counts:
        """The whole run; the counts."""
        began = time.monotonic()
        with self.crew:
            self.start_workers()
            with self.feeding():
                self.until(lambda: len(self.ledger.effects()) > self.rate, 60, "jobs run")
                self.scenario.inject(self)
                self.pause(5, 1)
            self.drain()
            counts = self.count()
            self.faults += self.crew.stop()
        counts.seconds = time.monotonic() - began
        counts.notes = [*self.notes, *self._said()]
        counts.faults += self.faults
        return counts

    def start_workers(self) -> None:
        """Starts the workers, and waits until they work."""
        for _ in range(self.scenario.workers):
            self.crew.add(memory=self.scenario.memory)
        self.until(lambda: self.crew.logs().count("worker started") >= self.scenario.workers, 60, "workers start")

    def until(self, check: Callable[[], Any], seconds: float, what: str) -> bool:
        """Whether ``check`` got true within the time; if not, that is a fault of the run."""
        end = time.monotonic() + seconds
        while not check():
            if time.monotonic() > end:
                self.faults.append(f"{what}: not within {seconds:.0f} s")
                return False
            time.sleep(0.2)
        return True

    def _left(self) -> int:
        return sum(queue.waiting + queue.active + queue.delayed for queue in queue_health())

    def drain(self) -> None:
        """Waits until nothing is waiting, running or delayed."""
        began = time.monotonic()
        self.until(lambda: not self._left(), self.scenario.drain, "all jobs end")
        self.notes.append(f"drained in {time.monotonic() - began:.0f} s")

    def count(self) -> Counts:
        """The counts so far."""
        return count(self.scenario.name, self.ledger, self.outside.marks(), self._left())

    def _said(self) -> list[str]:
        """What the logs tell besides."""
        logs = self.crew.logs()
        found = {
            "ended": len(self.crew.ended),
            "redis is away": logs.count("redis is away"),
            "tracebacks": logs.count("Traceback (most recent call last)"),
            "stalls": sum(window.why == "the machine stood still" for window in self.ledger.windows),
        }
        refused = Counter({error.partition(":")[2]: n for error, n in self.ledger.refused().items()})
        return [f"{number} {name}" for name, number in {**found, **refused}.items() if number]
