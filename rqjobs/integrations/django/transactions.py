"""Jobs wait for the commit, by themselves.

Inside ``transaction.atomic`` a job is enqueued when the outermost block commits, and not at all if it is rolled back.
It is automatic and not an option to remember, because the two mistakes differ: who forgets to ask for it gets a worker
that looks for a row which is not there yet, or tells the world of one that never was - seldom, and only under load;
who gets it unasked waits a few milliseconds. ``on_commit=False`` at a call (or ``RQJOBS = {"ON_COMMIT": False}``)
enqueues at once.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction

from rqjobs.integrations.django.conf import configured


def after_commit(write: Callable[[], None]) -> bool:
    """Has ``write`` called after the commit of the transaction that is open on the default database, if one is.

    Redis may be gone by then: the error reaches whoever ended the transaction. What must never be lost goes through
    the outbox instead.
    """
    if not configured().get("ON_COMMIT", True):
        return False
    connection = transaction.get_connection()
    if not connection.in_atomic_block:
        return False
    transaction.on_commit(write)
    return True
