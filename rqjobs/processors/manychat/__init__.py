"""ManyChat sync: each job changes one contact, tag or field, within ManyChat's rate limits."""

from rqjobs.processors.manychat.accounts import TokenSource, register_token_source
from rqjobs.processors.manychat.admission import admit
from rqjobs.processors.manychat.processor import sync

__all__ = ["TokenSource", "admit", "register_token_source", "sync"]
