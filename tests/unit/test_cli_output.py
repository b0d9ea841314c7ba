"""Tables in a terminal: nothing cut, no word broken, nothing obeyed that a job says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqjobs.cli.analytics import BAR
from rqjobs.cli.output import cell, lay_out
from rqjobs.config.durations import spell
from rqjobs.security.printable import printable

HEADERS = ("id", "queue", "jobs", "error")
ROWS = [
    (
        "0660ffd5b0a8a30ea7544c88",
        "manychat-sync",
        1234,
        "ManyChat refuses subscriber/update: no such subscriber",
    ),
    ("0660ffd5b0a8a30ea7544c89", "email", 7, None),
]


def text(screen: int) -> str:
    return "\n".join(line for lines in lay_out(HEADERS, ROWS, ("jobs",), screen) for line in lines)


def test_piped_every_row_is_one_line() -> None:
    assert text(1 << 20) == (
        "id                        queue           jobs  error\n"
        "0660ffd5b0a8a30ea7544c88  manychat-sync  1,234  ManyChat refuses subscriber/update: no such subscriber\n"
        "0660ffd5b0a8a30ea7544c89  email              7  -"
    )


def test_a_long_last_column_is_wrapped_beside_the_others() -> None:
    assert text(80) == (
        "id                        queue           jobs  error\n"
        "0660ffd5b0a8a30ea7544c88  manychat-sync  1,234  ManyChat refuses\n"
        "                                                subscriber/update: no such\n"
        "                                                subscriber\n"
        "0660ffd5b0a8a30ea7544c89  email              7  -"
    )


def test_cells_without_room_are_printed_below_their_row() -> None:
    assert text(42) == (
        "id                        queue\n"
        "    jobs · error\n"
        "0660ffd5b0a8a30ea7544c88  manychat-sync\n"
        "    jobs 1,234 · ManyChat refuses\n"
        "    subscriber/update: no such subscriber\n"
        "0660ffd5b0a8a30ea7544c89  email\n"
        "    jobs 7"
    )


def test_a_dash_in_the_data_is_not_shown_as_missing() -> None:
    long = "0660ffd5b0a8a30ea7544c88"
    assert lay_out(("id", "said"), [(long * 2, "-"), (long, None)], (), 40)[1:] == [[long * 2, "    -"], [long]]


WORD = st.text("abcdefghij-:/.", min_size=1, max_size=35)
CELL = st.lists(WORD, max_size=12).map(" ".join)


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), min_size=1, max_size=4), st.integers(40, 140))
def test_no_word_is_broken_and_no_line_is_wider_than_the_screen(rows: list[tuple[str, ...]], screen: int) -> None:
    lines = [line for lines in lay_out("abcd", rows, (), screen) for line in lines]
    shown = " ".join(lines).split()
    assert all(word in shown for row in rows for value in row for word in value.split())
    first = max(len(cell(row[0])) for row in rows)  # never wrapped: ids are to be copied
    assert all(len(line) <= max(screen, first) for line in lines)


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x9b31m", "\r", "\u202e", "\x07"])
def test_control_characters_in_a_text_of_a_job_are_escaped(hostile: str) -> None:
    assert cell(f"a{hostile}b").isprintable()
    assert printable(f"a{hostile}b\nc").replace("\n", "").isprintable()


def test_wide_letters_take_two_columns() -> None:
    (head, row, other) = lay_out(("name", "n"), [("予約", 1), ("abcd", 2)], ("n",), 80)
    assert (head, row, other) == (["name  n"], ["予約  1"], ["abcd  2"])


def test_durations_are_spelt_in_two_units_at_most() -> None:
    spelt = {0: "0 ms", 0.25: "250 ms", 1.4: "1s", 59.6: "1m", 61: "1m 1s", 3600: "1h", 7299: "2h 1m", 90061: "1d 1h"}
    assert {seconds: spell(timedelta(seconds=seconds)) for seconds in spelt} == spelt
    assert cell(datetime.now(UTC) + timedelta(days=3, hours=5.5)) == "in 3d 5h"
    assert cell(datetime.now(UTC) - timedelta(hours=3, minutes=5, seconds=1)) == "3h 5m ago"


def test_a_report_draws_its_bars_beside_its_numbers() -> None:
    heads = ("day", "scans", "visitors", "validations", "")
    rows = [("Mon 2026-10-26", "99,999", "99,999", "99,999", bar) for bar in ("█" * BAR, " ")]
    assert all(len(lines) == 1 for lines in lay_out(heads, rows, heads[1:4], 80))
