"""FastAPI, Starlette and other ASGI apps: ``FastAPI(lifespan=lifespan)``, and ``await aenqueue_...``.

This module does not import FastAPI: a lifespan is a plain asynchronous context manager.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from rqjobs.broker.connection import close_connection, get_connection
from rqjobs.policies import import_registrations

Lifespan = Callable[[Any], AbstractAsyncContextManager[Any]]


@contextlib.asynccontextmanager
async def lifespan(_app: Any) -> AsyncIterator[None]:
    """Connects to Redis before the first request, and closes the connection after the last.

    Raises:
        RedisUnavailable: Redis does not answer; the server does not start, and logs the reason.
        InvalidSettings: the settings are invalid; the message names every fault.
    """
    import_registrations()
    await asyncio.to_thread(get_connection)
    try:
        yield
    finally:
        await asyncio.to_thread(close_connection)


def with_rqjobs(own: Lifespan) -> Lifespan:
    """Returns a lifespan that wraps the app's ``own``: ``FastAPI(lifespan=with_rqjobs(mine))``."""

    @contextlib.asynccontextmanager
    async def both(app: Any) -> AsyncIterator[Any]:
        async with lifespan(app), own(app) as state:
            yield state

    return both
