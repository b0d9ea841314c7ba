"""However events are cut into batches, and in whatever order they come, the counts are those of all of them."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from rqjobs.processors.analytics.events import QREvent
from rqjobs.processors.analytics.tally import merge_visits, tally, visits

START = datetime(2026, 3, 1, 22, tzinfo=UTC)


def event(*, number, code, user, kind, minute, visitor, bot):
    moment = START + timedelta(minutes=minute)
    return QREvent(
        event_id=str(number),
        qr_code_id=code,
        user_id=user,
        event=kind,
        result="valid" if kind == "validation" else None,
        occurred_at=moment,
        bot=bot,
        device="mobile",
        os="iOS",
        browser=None,
        country="DE",
        city=None,
        ip=None,
        visitor=visitor and f"{user}-{moment.date()}-{visitor}",
        extra=None,
    )


events_in_batches = st.lists(
    st.lists(
        st.builds(
            event,
            number=st.uuids(),
            code=st.sampled_from("abc"),
            user=st.sampled_from(["u1", "u2", None]),
            kind=st.sampled_from(["scan", "scan", "scan", "validation"]),
            minute=st.integers(0, 300),
            visitor=st.sampled_from(["v1", "v2", "v3", None]),
            bot=st.booleans(),
        ),
        max_size=8,
    ),
    max_size=8,
)


@given(events_in_batches)
def test_visitors_are_counted_once_at_their_first_scan_of_the_day(batches):
    known, counted = {}, Counter()
    for batch in batches:
        changed, cells = merge_visits(visits(batch), known)
        known |= changed
        counted.update(cells)

    times = defaultdict(list)
    for item in (item for batch in batches for item in batch):
        if item.event == "scan" and not item.bot and item.visitor:
            quarter = item.occurred_at.hour * 4 + item.occurred_at.minute // 15
            for scope in {"all", f"user:{item.user_id}" if item.user_id else "all", f"code:{item.qr_code_id}"}:
                times[scope, item.occurred_at.date().isoformat(), item.visitor].append(quarter)
    expected = Counter()
    for (scope, day, _), quarters in times.items():
        expected[scope, "visitor", day, "", min(quarters)] += 1
        expected[scope, "returning", day, "", min(quarters)] += len(quarters) > 1
    assert +counted == +expected
    assert not -counted


@given(events_in_batches)
def test_every_event_counts_once_in_each_of_its_scopes(batches):
    everything = [item for batch in batches for item in batch]
    cells = tally(everything)
    assert cells == sum((tally(batch) for batch in batches), Counter())
    totals = Counter()
    for (scope, metric, *_), number in cells.items():
        totals[scope, metric] += number
    people = [item for item in everything if item.event == "scan" and not item.bot]
    for metric in ("scan", "client", "place", "code"):
        assert totals["all", metric] == len(people)
    assert totals["all", "bot"] == sum(item.event == "scan" and item.bot for item in everything)
    assert totals["all", "validation"] == sum(item.event == "validation" for item in everything)
    assert totals["code:a", "scan"] == sum(item.qr_code_id == "a" for item in people)
    assert totals["code:a", "code"] == 0
    assert totals["user:u1", "scan"] == totals["user:u1", "code"] == sum(item.user_id == "u1" for item in people)
