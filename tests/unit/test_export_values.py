"""Values as text, and what a spreadsheet would run."""

import csv
import io
import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import StrEnum
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqjobs.processors.export import text as text_formats
from rqjobs.processors.export import values
from rqjobs.processors.export.right_to_left import visual
from rqjobs.processors.export.text import CsvWriter, JsonWriter, NdjsonWriter
from rqjobs.processors.export.values import (
    SCALARS,
    Batch,
    converted,
    guard,
    iso_datetime,
    iso_duration,
    normalised,
)
from rqjobs.processors.export.writer import Heading

HEADING = Heading(columns=("a", "b"), title="t", created_at=datetime(2026, 1, 1, tzinfo=UTC))


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "hostile",
    ["=1+1", "+1+1", "-1+1|cmd", "@SUM(A1)", "\t=1", "\r=1", "\n1", "  =1", "\u00a0=1", "\u3000@x", "\ufeff=1",
     "\uff1d1", "\uff0bA1", "\uff0d\uff0d", "\uff20x", "\x00=1", "\u200b=1", "=", "-", "\xad=1", "\u180e=1",
     "\u2061=1", "\u202e=1", "+1-2", "+1-212-555-0123", "+49/151", "+49(151)", "+49 -151", "+49 151+1", "+49 151-",
     "+49 A1", "+49 151|x", "+49 151!x", "+ 49 151", "-49 151", "+49  151", "+49 (151)", "+49 151\n", "+49 1:2",
     "+49 151%", "+49,1 2", "+\u0664\u0669 151"],
)  # fmt: skip
def test_formulas_are_guarded(hostile):
    assert guard(hostile) == f"'{hostile}"
    rows = written(CsvWriter, [(hostile, "x")])
    assert rows.startswith(b"\xef\xbb\xbfa,b\r\n")
    assert next(csv.reader(io.StringIO(rows.decode("utf-8-sig"), newline=""))) == ["a", "b"]
    assert list(csv.reader(io.StringIO(rows.decode("utf-8-sig"), newline="")))[1][0] == f"'{hostile}"


@pytest.mark.parametrize(
    "harmless",
    ["", "a=b", "-5", "+49151234567", "-3.25", "1e5", "-1e-5", "50%", "a@b.de", "'=1", "+49 151 2345000",
     "+1 212", "+44 20 7946 0958", "+1 (212) 555-0123", "+49 (0)151 2345000", "+49 (0) 151 23 45", "+49 30 1234/56",
     "+33 1.42.68"],
)  # fmt: skip
def test_harmless_texts_are_not_changed(harmless):
    assert guard(harmless) == harmless


@pytest.mark.parametrize("text", ["x;=1+1;y", "a\t=1", "first line\n=second\r\n-third", "a|@b", "see; -5 C\n- a list"])
def test_the_text_inside_a_cell_is_never_altered(text):
    content = written(CsvWriter, [(text, f"={text}")]).decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(content, newline="")))[1] == [text, f"'={text}"]


def test_the_guard_has_a_switch_and_json_is_never_altered():
    assert b"=1+1" in written(CsvWriter, [("=1+1", None)], guarded=False, bom=False)
    assert b"'" not in written(CsvWriter, [("=1+1", None)], guarded=False)
    assert json.loads(written(NdjsonWriter, [("=1+1", "x;=2")])) == {"a": "=1+1", "b": "x;=2"}


CELL = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(st.characters(exclude_categories=())),
    st.floats(allow_nan=False, allow_infinity=False),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@pytest.fixture(params=["orjson", "json"])
def encoder(request, monkeypatch):
    if request.param == "json":
        monkeypatch.setattr(text_formats, "orjson", None)
        monkeypatch.setattr(values, "orjson", None)


@pytest.mark.parametrize("writer", [JsonWriter, NdjsonWriter])
def test_json_reads_back_as_it_was(writer, encoder):
    @given(st.lists(st.tuples(CELL, CELL), max_size=5))
    def check(rows):
        content = written(writer, rows)
        read = json.loads(content) if writer is JsonWriter else [json.loads(line) for line in content.splitlines()]
        assert [(row["a"], row["b"]) for row in read] == rows

    check()


@given(st.lists(st.tuples(st.text(st.characters(exclude_categories=("Cs",))), st.integers()), min_size=1, max_size=5))
def test_csv_reads_back_as_it_was(rows):
    content = written(CsvWriter, rows, guarded=False).decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(content, newline="")))[1:] == [[text, str(number)] for text, number in rows]


TEXT = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from('",\r\n;'))
PLAIN = TEXT | st.none() | st.integers() | st.floats()


@given(st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[PLAIN] * width), min_size=1, max_size=5)))
def test_csv_equals_the_output_of_the_standard_library(rows):
    heading = Heading(columns=("a", "b", "c")[: len(rows[0])], title="t", created_at=HEADING.created_at)
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\r\n").writerows([heading.columns, *rows])
    assert written(CsvWriter, rows, heading, bom=False, guarded=False) == buffer.getvalue().encode()


@given(
    st.lists(st.none() | TEXT | st.sampled_from(["=1", "x;=1", "+49151", "+49 151", "\n@x"]), min_size=1, max_size=5)
)
def test_a_column_is_guarded_as_its_texts_are_one_by_one(column):
    content = written(CsvWriter, [(text, 1) for text in column]).decode("utf-8-sig")
    found = [row[0] for row in csv.reader(io.StringIO(content, newline=""))][1:]
    assert found == ["" if text is None else guard(text) for text in column]


ZONES = st.sampled_from(
    [None, UTC, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin"), timezone(timedelta(hours=-9, minutes=-30))]
)
MOMENTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=ZONES)  # noqa: DTZ001


def test_a_column_of_moments_is_written_as_each_of_them(encoder):
    @given(st.lists(st.none() | MOMENTS, max_size=5))
    def check(column):
        expected = [None if moment is None else iso_datetime(moment) for moment in column]
        assert converted([column], SCALARS)[0] == expected
        lines = written(NdjsonWriter, [(moment, None) for moment in column]).splitlines()
        assert [json.loads(line)["a"] for line in lines] == expected

    check()


@given(st.text())
def test_no_text_survives_the_guard_as_a_formula(text):
    guarded = guard(text)
    assert guarded in (text, f"'{text}")
    if guarded == text and text[:1] in ("=", "+", "-", "@"):
        plain = text.rstrip("%").replace(",", ".")
        assert set(text) <= set("+0123456789 ()-/.") if " " in text else float(plain) is not None


def test_every_type_has_one_spelling(encoder):
    zoned = datetime(2026, 1, 31, 23, 30, tzinfo=timezone(timedelta(hours=1)))
    spellings = [
        (zoned, "2026-01-31T22:30:00Z"),
        (datetime(2026, 1, 31, 9, 30, 0, 500), "2026-01-31T09:30:00.000500"),  # noqa: DTZ001
        (datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-5))), "9999-12-31T23:00:00-05:00"),
        (date(2026, 1, 31), "2026-01-31"),
        (time(9, 30), "09:30:00"),
        (timedelta(minutes=1, milliseconds=500), "PT60.5S"),
        (Decimal("10.50"), "10.50"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "AP8="),
        (Colour.RED, "red"),
        ({"when": zoned, "n": [Decimal("1.0")]}, {"when": "2026-01-31T22:30:00Z", "n": ["1.0"]}),
        (2**70, 2**70),
        (float("nan"), None),
        (None, None),
    ]
    for value, expected in spellings:
        assert json.loads(written(NdjsonWriter, [(value, None)]))["a"] == expected
    assert json.loads(written(NdjsonWriter, [(2**70, float("inf")), (0.5, None)]).splitlines()[0])["b"] is None
    flat = written(CsvWriter, [(True, None), ({"a": 1}, [1, 2])], bom=False).decode().split("\r\n")
    assert flat[1:3] == ["true,", '"{""a"":1}","[1,2]"']
    assert iso_datetime(zoned) == "2026-01-31T22:30:00Z"
    assert iso_duration(timedelta(0)) == "PT0S"


def test_right_to_left_is_drawn_in_its_order():
    assert visual("abc") == "abc"
    assert visual("שלום") == "םולש"
    assert visual("שלום 12 abc") == "abc 12 םולש"
    assert visual("abc שלום def") == "abc םולש def"
    assert visual("(שלום)") == "(םולש)"


def written(writer, rows, heading=HEADING, **options) -> bytes:
    file = io.BytesIO()
    out = writer(file, heading, **options)
    if rows:
        out.write(Batch(normalised(list(zip(*rows, strict=True)))))
    out.close()
    return file.getvalue()
