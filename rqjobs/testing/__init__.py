"""For the tests of apps: jobs captured and asserted on, run inline, or drained from a real Redis in this process."""

from typing import TYPE_CHECKING

from rqjobs.config.lazy_imports import lazy_exports

if TYPE_CHECKING:
    from rqjobs.testing.helpers import Captured, Drained, capture, drain, embedded_redis, empty_redis, environment, run

__all__ = ["Captured", "Drained", "capture", "drain", "embedded_redis", "empty_redis", "environment", "run"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(__name__, {"helpers": tuple(__all__)})
