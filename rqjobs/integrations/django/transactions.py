"""Jobs wait for the commit, by themselves.

Inside ``transaction.atomic`` a job is enqueued when the outermost block commits, and not at all if it is rolled back.
It is automatic and not an option to remember, because the two mistakes differ: without it, a worker
may look for a row that is not committed yet, or send a webhook for one that is rolled back - seldom, and under load;
with it, a job waits a few milliseconds. ``on_commit=False`` at a call (or ``RQJOBS = {"ON_COMMIT": False}``)
enqueues at once.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction

from rqjobs.integrations.django.conf import configured


def after_commit(write: Callable[[], None]) -> bool:
    """Has ``write`` called after the commit of the transaction that is open on the default database, if one is.

    Redis may be gone by then: the error reaches the end of the transaction. What must never be lost goes through
    the outbox instead.
    """
    if not configured().get("ON_COMMIT", True):
        return False
    connection = transaction.get_connection()
    if not connection.in_atomic_block:
        return False
    transaction.on_commit(write)
    return True
