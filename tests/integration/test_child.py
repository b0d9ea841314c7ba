"""The process that runs jobs apart from the worker does not outlive it."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest


@pytest.mark.parametrize("read", [True, False], ids=["all-read", "last-words-unread"])
def test_it_ends_with_its_worker(read: bool) -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "rqjobs.worker.runners.child_process", str(theirs.fileno()), "data-export"]
    with subprocess.Popen(command, pass_fds=(theirs.fileno(),)) as child:
        theirs.close()
        ours.settimeout(60)
        assert ours.recv(1, 0 if read else socket.MSG_PEEK)  # it is ready
        if read:
            ours.recv(1000)
        ours.close()  # as kill -9 does it
        try:
            assert child.wait(60) == 0
        finally:
            child.kill()
