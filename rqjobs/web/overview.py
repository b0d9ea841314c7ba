"""The overview: the queues, the last hour, the workers, and problems that need a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from flask import Blueprint, render_template, url_for
from flask.typing import ResponseReturnValue

from rqjobs.broker.connection import get_connection
from rqjobs.monitoring.metrics import MINUTES, Figures, last_hour, together
from rqjobs.monitoring.queue_health import QueueHealth, fullness, parked_destinations, queue_health, reason_of_deaths
from rqjobs.monitoring.workers import slots_of, workers
from rqjobs.web.charts import Chart, Series, line, nice_top, stacked_bars
from rqjobs.web.show import seconds

blueprint = Blueprint("overview", __name__)

_MANY_DIED = 10
_SHARE_DIED = 0.1
"""The least number of dead jobs in the last hour, and their share of all ended jobs, for a warning on the page."""


class Trouble(NamedTuple):
    """One problem that needs a person."""

    queues: list[str]
    text: str
    link: str = ""
    """The URL of the page that shows it ..."""
    label: str = ""
    """... and the text of the link."""


@dataclass(frozen=True)
class _Row:
    """One queue in the table."""

    health: QueueHealth
    hour: Figures
    spark: str
    slots: int
    """The slots of this queue in all workers; 0 if none reports them."""

    @property
    def state(self) -> str:
        """The colour of the queue's dot."""
        if self.health.reasons:
            return "bad"
        return "paused" if self.health.paused else "good"


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Shows the page."""
    return render_template("overview.html", **_numbers())


@blueprint.get("/live")
def live() -> ResponseReturnValue:
    """Returns the part of the page that changes, for the page's script."""
    return render_template("_overview.html", **_numbers())


def _numbers() -> dict[str, Any]:
    connection = get_connection()
    queues = queue_health(connection)
    hour = last_hour(connection)
    by_queue = {queue.name: [minute.get(queue.name, Figures()) for minute in hour] for queue in queues}
    found = workers(connection)
    slots = slots_of(found)
    rows = [
        _Row(queue, together(by_queue[queue.name]), _spark(by_queue[queue.name]), slots[queue.name]) for queue in queues
    ]
    minutes = [together(minute.values()) for minute in hour]
    full = fullness(connection)
    return {
        "rows": rows,
        "whole": together(minutes),
        "last_minutes": together(minutes[-6:-1]),
        "waiting": sum(queue.waiting for queue in queues),
        "running": sum(queue.active for queue in queues),
        "failed": sum(queue.failed for queue in queues),
        "troubles": [*([Trouble(["Redis"], full)] if full else ()), *_troubles(rows)],
        "parked": parked_destinations(connection),
        "workers": found,
        "slots": slots.total(),
        "rate": _rate_chart(minutes),
        "latency": _latency_chart(minutes),
    }


def _troubles(rows: list[_Row]) -> Iterator[Trouble]:
    """Yields the reasons why queues are unhealthy; a reason that several queues share appears once."""
    by_reason: dict[str, list[str]] = {}
    for row in rows:
        deaths = reason_of_deaths(row.health)
        if deaths is not None:
            text = deaths.partition(": see why")[0]
            yield Trouble([row.health.name], text, url_for("dead.index", queue=row.health.name), "see why")
        for reason in row.health.reasons:
            if reason != deaths:
                by_reason.setdefault(reason, []).append(row.health.name)
    for reason, names in by_reason.items():
        yield Trouble(names, reason, url_for("queues.show", name=names[0]), "see the queue")
    for row in rows:
        died, done = row.hour.outcomes["dead"], row.hour.outcomes["done"]
        if not row.health.dying and died >= _MANY_DIED and died >= _SHARE_DIED * (died + done):
            text = f"{died:,} of {died + done:,} jobs died in the last hour"
            yield Trouble([row.health.name], text, url_for("dead.index", queue=row.health.name), "see why")


def _minute_name(index: int) -> str:
    left = MINUTES - 1 - index
    return "this minute" if left == 0 else f"{left} min ago"


def _rate_chart(minutes: list[Figures]) -> Chart:
    layers = [[float(minute.outcomes[name]) for minute in minutes] for name in ("done", "retried", "dead")]
    top = nice_top(max(sum(step) for step in zip(*layers, strict=True)))
    paths = stacked_bars(layers, top)
    tips = tuple(
        f"{_minute_name(index)}: {done:,.0f} done, {retried:,.0f} retried, {dead:,.0f} dead"
        for index, (done, retried, dead) in enumerate(zip(*layers, strict=True))
    )
    series = zip(("done", "retried", "dead"), ("c-done", "c-retried", "c-dead"), paths, strict=True)
    return Chart(series=tuple(Series(name=name, css=css, path=path) for name, css, path in series), top=top, tips=tips)


def _latency_chart(minutes: list[Figures]) -> Chart:
    runs = [minute.durations.quantile(0.95) for minute in minutes]
    waits = [minute.waits.quantile(0.95) for minute in minutes]
    top = nice_top(max((value for value in (*runs, *waits) if value is not None), default=0))
    tips = tuple(
        f"{_minute_name(index)}: 95 % waited no longer than {seconds(wait)} and ran no longer than {seconds(run)}"
        for index, (run, wait) in enumerate(zip(runs, waits, strict=True))
    )
    series = (
        Series(name="wait", css="c-wait", path=line(waits, top)),
        Series(name="run", css="c-run", path=line(runs, top)),
    )
    return Chart(series=series, top=top, tips=tips)


def _spark(minutes: list[Figures]) -> str:
    values = [float(minute.outcomes.total()) for minute in minutes]
    return stacked_bars([values], max(*values, 1.0))[0]
