"""The ManyChat account of a tool: its token, and the account's key in Redis."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import SecretStr

from rqjobs.config.settings import check_token, get_settings
from rqjobs.errors import PermanentFailure

TokenSource = Callable[[str], str | None]
"""``source(tool_id)`` returns the tool's token, or None if it has none."""

_source: TokenSource | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """One ManyChat account, with its token."""

    tool_id: str
    token: str = field(repr=False)

    @property
    def key(self) -> str:
        """The name of the account in Redis: an HMAC with the token as its key.

        It reveals nothing about the token, and is the same for all workers, and for all tools with the same token.
        """
        return hmac.digest(self.token.encode(), b"rqjobs manychat account", hashlib.sha256).hex()[:24]


def register_token_source(source: TokenSource | None) -> None:
    """Registers ``source``, your database or vault, as the first place to look up a tool's token.

    Call it in a module of RQJOBS_IMPORT. The source is called for every job, in the worker's threads.
    """
    global _source  # noqa: PLW0603
    _source = source


def account_of(tool_id: str) -> Account:
    """Returns the account of the tool: from the registered source, else MANYCHAT_API_TOKENS, else MANYCHAT_API_TOKEN.

    Raises:
        PermanentFailure: there is no token, or the source's token cannot be sent in a header.
    """
    token = _source(tool_id) if _source is not None else None
    if token is not None:
        try:
            check_token(SecretStr(token))
        except ValueError as error:
            raise PermanentFailure(f"the registered token source, for tool {tool_id!r}: {error}") from None
        return Account(tool_id, token)
    settings = get_settings()
    secret = settings.manychat_api_tokens.get(tool_id, settings.manychat_api_token)
    if secret is None:
        raise PermanentFailure(
            f"no ManyChat token for tool {tool_id!r}: set MANYCHAT_API_TOKEN, or add the tool to MANYCHAT_API_TOKENS"
        )
    return Account(tool_id, secret.get_secret_value())
