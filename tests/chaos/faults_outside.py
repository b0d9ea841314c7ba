"""Faults of the database and of everything that jobs talk to."""

from __future__ import annotations

import contextlib
import os
import shutil

from tests.chaos.run import Run


def postgres_away(run: Run) -> None:
    for _ in range(run.times(10, 1)):
        run.postgres.kill()
        run.pause(20, 4)
        run.postgres.start()
        run.pause(10, 1)


def disk_full(run: Run) -> None:
    for _ in range(run.times(3, 1)):
        filler = run.folder / "small" / "filler"
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(descriptor, bytes(4096))
        os.close(descriptor)
        run.pause(20, 4)
        filler.unlink()
        run.pause(5, 1)


def smtp_away(run: Run) -> None:
    for _ in range(run.times(3, 1)):
        with run.ledger.window("SMTP server stopped"):
            run.outside.smtp.off()
        run.pause(60, 6)
        run.outside.smtp.on()
        run.pause(10, 1)


def mail_key_revoked(run: Run) -> None:
    for _ in range(run.times(2, 1)):
        with run.outside.key_revoked():
            run.pause(60, 4)
        run.pause(10, 1)


def names_unanswered(run: Run) -> None:
    for silent in (False, True):
        with run.outside.names_unanswered(silent=silent):
            run.pause(60, 6)
        run.pause(10, 1)


def manychat_token_revoked(run: Run) -> None:
    run.until(run.outside.manychat.marks, 60, "contacts are made")
    with run.outside.manychat_answers(401):
        run.pause(60, 6)


def manychat_broken(run: Run) -> None:
    run.until(run.outside.manychat.marks, 60, "contacts are made")
    with run.outside.manychat_answers(500):
        run.pause(60, 6)


def export_store_away(run: Run) -> None:
    """The folder is gone, and a file is in its place: what a lost mount looks like to root as well."""
    run.until(lambda: any(run.store.iterdir()), 60, "exports are written")
    for _ in range(run.times(3, 1)):
        aside = run.store.with_name("aside")
        run.store.rename(aside)
        run.store.touch()
        run.pause(30, 8)
        run.store.unlink()
        aside.rename(run.store)
        run.pause(5, 1)


def no_mount() -> str | None:
    """Why there can be no full disk here: it needs a small one."""
    if os.geteuid() == 0 and shutil.which("mount"):
        return None
    return "a full disk needs root and mount"
