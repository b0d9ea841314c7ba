"""The overview: the queues, the last hour, the workers, and what needs a person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from rqjobs.connection import get_connection
from rqjobs.health import QueueHealth, parked_destinations, pause, queue_health, resume, workers
from rqjobs.metrics import MINUTES, Figures, last_hour, together
from rqjobs.web.charts import Chart, Series, line, nice_top, stacked_bars
from rqjobs.web.show import seconds

blueprint = Blueprint("overview", __name__)

Hour = list[dict[str, Figures]]


@dataclass(frozen=True)
class _Row:
    """One queue in the table."""

    health: QueueHealth
    hour: Figures
    spark: str

    @property
    def state(self) -> str:
        """The colour of its dot."""
        if self.health.reasons:
            return "bad"
        return "paused" if self.health.paused else "good"


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """The page."""
    return render_template("overview.html", **_numbers())


@blueprint.get("/live")
def live() -> ResponseReturnValue:
    """The part of the page that changes, for the page's script."""
    return render_template("_overview.html", **_numbers())


@blueprint.post("/queues/<queue>/pause")
def pause_queue(queue: str) -> ResponseReturnValue:
    """No worker takes jobs of the queue until it is resumed."""
    pause(queue)
    flash(f"{queue} is paused. Running jobs go on, new ones wait.")
    return redirect(url_for("overview.index"))


@blueprint.post("/queues/<queue>/resume")
def resume_queue(queue: str) -> ResponseReturnValue:
    """Ends a pause."""
    resume(queue)
    flash(f"{queue} goes on.")
    return redirect(url_for("overview.index"))


def _numbers() -> dict[str, Any]:
    connection = get_connection()
    queues = queue_health(connection)
    hour = last_hour(connection)
    by_queue = {queue.name: [minute.get(queue.name, Figures()) for minute in hour] for queue in queues}
    rows = [_Row(queue, together(by_queue[queue.name]), _spark(by_queue[queue.name])) for queue in queues]
    minutes = [together(minute.values()) for minute in hour]
    return {
        "rows": rows,
        "whole": together(minutes),
        "last_minutes": together(minutes[-6:-1]),
        "waiting": sum(queue.waiting for queue in queues),
        "active": sum(queue.active for queue in queues),
        "failed": sum(queue.failed for queue in queues),
        "troubles": [(queue.name, reason) for queue in queues for reason in queue.reasons],
        "parked": parked_destinations(connection),
        "workers": workers(connection),
        "rate": _rate_chart(minutes),
        "latency": _latency_chart(minutes),
    }


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
