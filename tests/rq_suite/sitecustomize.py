"""For every Python process of RQ's tests: what would reach Redis' usual port reaches the server of this run."""

import os

import redis.connection

PORT = int(os.environ["RQ_SUITE_PORT"])
USUAL = 6379

_init = redis.connection.Connection.__init__


def _here(self, host="localhost", port=USUAL, *args, **options):
    _init(self, host, PORT if int(port) == USUAL else port, *args, **options)


redis.connection.Connection.__init__ = _here
