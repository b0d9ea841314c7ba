"""Helpers for the tests of apps: capture enqueued jobs, run a job inline, or drain queues in a real Redis."""

from typing import TYPE_CHECKING

from rqjobs.config.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from rqjobs.testing.helpers import Captured, Drained, capture, drain, embedded_redis, empty_redis, environment, run

__all__ = ["Captured", "Drained", "capture", "drain", "embedded_redis", "empty_redis", "environment", "run"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(__name__, {"helpers": tuple(__all__)})
