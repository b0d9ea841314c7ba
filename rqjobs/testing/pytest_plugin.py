"""The pytest plugin: fixtures, without any effect on tests that do not use them.

``rqjobs_captured``: the jobs that the test enqueues, without Redis. ``rqjobs_redis``: an embedded Redis, empty for each
test, as REDIS_URL. ``rqjobs_drain``: runs the jobs that wait there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rqjobs.testing import Captured, Drained


@pytest.fixture
def rqjobs_captured() -> Iterator[Captured]:
    """The jobs that the test enqueues; no Redis is needed."""
    from rqjobs.testing import capture

    with capture() as captured:
        yield captured


@pytest.fixture(scope="session")
def rqjobs_redis_url() -> Iterator[str]:
    """The URL of an embedded Redis that runs for the whole test session."""
    from rqjobs.testing import embedded_redis

    with embedded_redis() as url:
        yield url


@pytest.fixture
def rqjobs_redis(rqjobs_redis_url: str, tmp_path: Path) -> Iterator[str]:
    """Sets REDIS_URL to an empty embedded Redis and DATABASE_URL to an empty SQLite file, for one test."""
    from rqjobs.broker.connection import close_connection
    from rqjobs.testing import empty_redis, environment

    empty_redis(rqjobs_redis_url)
    with environment(
        REDIS_URL=rqjobs_redis_url,
        DATABASE_URL=f"sqlite:///{tmp_path}/rqjobs.db",
        RQJOBS_DATA=str(tmp_path / "rqjobs"),
    ):
        yield rqjobs_redis_url
    close_connection()


@pytest.fixture
def rqjobs_drain(rqjobs_redis: str) -> Callable[..., Drained]:  # noqa: ARG001  # asked for its effect
    """``rqjobs_drain("webhooks")`` runs the waiting jobs, retries included: see ``rqjobs.testing.drain``."""
    from rqjobs.testing import drain

    return drain
