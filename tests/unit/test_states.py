"""The five states of a job, and the table that translates RQ's words to them."""

from __future__ import annotations

import pytest
from rq.job import JobStatus

from rqjobs.broker.states import BY_RQ_STATUS, RQ_REGISTRIES, State, state_of


def test_every_status_of_rq_has_a_state() -> None:
    assert BY_RQ_STATUS.keys() == {status.value for status in JobStatus}
    assert set(BY_RQ_STATUS.values()) == set(State) == set(RQ_REGISTRIES)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("started", State.RUNNING),
        (b"scheduled", State.DELAYED),
        (JobStatus.FINISHED, State.DONE),
        (None, None),
        (b"\xff", None),
    ],
)
def test_a_status_is_translated(status: str | bytes | None, state: State | None) -> None:
    assert state_of(status) is state
