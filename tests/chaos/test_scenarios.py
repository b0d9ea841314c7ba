"""Each dependency fails while jobs of all kinds run: what was acknowledged is done, once, or dead by its own fault."""

from __future__ import annotations

import os
from dataclasses import asdict

import pytest

from tests.chaos.run import Run, Scenario
from tests.chaos.scenarios import SCENARIOS

SHORT = [pytest.param(scenario, id=scenario.name) for scenario in SCENARIOS if scenario.short]
ALL = [pytest.param(scenario, id=scenario.name) for scenario in SCENARIOS]
RATE = {True: 200.0, False: 40.0}
"""Jobs a second, in the long form and in the short one."""


def holds(scenario: Scenario, tmp_path, monkeypatch, record_property, *, long: bool) -> None:
    if reason := scenario.missing():
        pytest.skip(reason)
    run = Run(scenario, tmp_path, long=long, rate=RATE[long])
    with run.world(monkeypatch.setenv):
        counts = run.go()
    print(f"\n{counts.line()}")
    record_property("chaos", asdict(counts))
    assert not counts.faults, "\n".join(counts.faults[:40])
    assert counts.acknowledged == counts.done + counts.own + counts.held + counts.stated
    assert counts.doubled == 0


@pytest.mark.parametrize("scenario", SHORT)
def test_nothing_is_lost_or_doubled(scenario, tmp_path, monkeypatch, record_property):
    holds(scenario, tmp_path, monkeypatch, record_property, long=False)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ALL)
def test_nothing_is_lost_or_doubled_for_long(scenario, tmp_path, monkeypatch, record_property):
    """CHAOS_FORM=short runs all of them in the short form."""
    holds(scenario, tmp_path, monkeypatch, record_property, long=os.environ.get("CHAOS_FORM") != "short")
