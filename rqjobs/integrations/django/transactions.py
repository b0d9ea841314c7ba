"""Defers jobs until the commit.

Inside ``transaction.atomic`` a job is enqueued when the outermost block commits, and not if it is rolled back. This is
the default, because the alternative has rare faults under load: a worker may read a row that is not committed yet, or
send a webhook for one that is rolled back. The cost is a few milliseconds of delay. ``on_commit=False`` at a call (or
``RQJOBS = {"ON_COMMIT": False}``) enqueues at once.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction

from rqjobs.integrations.django.conf import configured


def after_commit(write: Callable[[], None]) -> bool:
    """Calls ``write`` after the commit of the open transaction on the default database; returns False if there is none.

    If Redis does not answer then, the error is raised at the end of the transaction. Jobs that must not be lost need
    the outbox instead.
    """
    if not configured().get("ON_COMMIT", True):
        return False
    connection = transaction.get_connection()
    if not connection.in_atomic_block:
        return False
    transaction.on_commit(write)
    return True
