"""Masks secrets in jobs, errors and logs where they are shown, and keeps them when other fields of a job are edited."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

MASK = "(hidden)"
"""The text shown instead of a secret."""

_SECRET = re.compile(
    r"secret|passw|passcode|passphrase|token|credential|cookie|authori[sz]ation|^headers$"
    r"|(?:api|private|access|signing|encryption)[-_ ]?key|session[-_ ]?id"
    r"|(?:reset|magic|login|verify|verification|confirm|confirmation|activation|invite|invitation)"
    r"[-_ ]?(?:link|url|code)",
    re.IGNORECASE,
)
_WORDS = frozenset(
    {"pwd", "pin", "otp", "totp", "auth", "oauth", "bearer", "jwt", "sig", "signature", "session", "csrf"}
)
"""Words that mark a secret as a whole word of a name: ``user_pin`` and ``userPin``, but not ``shipping``."""
_PARAMETERS = _WORDS | {"key", "sid", "code", "ticket"}
"""Words that mark a secret as a parameter of a URL."""
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[a-z]+")
_LONGEST_NAME = 200

_URL = re.compile(r"://[^\s\"'<>`]+")
_CUT = re.compile(r"([?&;#])")
_NAME = re.compile(r"(?<![\w-])([\"']?)([\w-]{1,64})[\"']?\s{0,2}([=:])\s{0,2}")
_VALUE = re.compile(
    r"b?[\"'][^\"'\n]*[\"']?|(?:(?:bearer|basic|token|digest)\s{1,3})?[^\s&;#,\"'<>(){}\[\]]+", re.IGNORECASE
)
_KNOWN = re.compile(
    r"(?<![\w-])eyJ[\w-]{8,}\.[\w-]{4,}(?:\.[\w-]*)?"  # a JWT
    r"|(?<![\w-])(?:whsec_|sk_live_|sk_test_|gh[pousr]_|xox[abpr]-)[\w+/=-]{8,}"
)
_BEARER = re.compile(r"(?<!\w)(bearer|basic)(\s{1,3})(?=[A-Za-z._~+/=-]*\d)[\w.~+/=-]{8,}", re.IGNORECASE)
_HEADER = re.compile(r"authori[sz]ation|cookie|^x-", re.IGNORECASE)
_LEADS_TO_TOKEN = re.compile(r"reset|verif|confirm|activat|invit|magic|unsubscribe|recover|token|passw", re.IGNORECASE)
_RUN = re.compile(r"[A-Za-z0-9]{20,}")
_HEX_ID = re.compile(r"[0-9a-f]{20,31}")
_SHORT_TOKEN, _TOKEN = 12, 20  # characters


def is_secret_name(name: str, *, parameter: bool = False) -> bool:
    """Returns whether ``name`` is the name of a secret, such as ``userPassword``.

    ``parameter`` is for names in the query of a URL.
    """
    name = name[:_LONGEST_NAME]
    if _SECRET.search(name):
        return True
    return not (_PARAMETERS if parameter else _WORDS).isdisjoint(_WORD.findall(_HUMP.sub("_", name).lower()))


def mask(value: Any, *, secret: bool = False) -> Any:
    """Returns ``value`` with its secrets masked.

    Secrets are all headers, the values of names such as ``token`` or ``passwords``, and secrets inside texts.
    """
    if isinstance(value, dict):
        return {name: mask(item, secret=secret or is_secret_name(str(name))) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [mask(item, secret=secret) for item in value]
    if isinstance(value, str):
        return MASK if secret else mask_text(value)
    return MASK if secret and isinstance(value, int | float) else value


def mask_text(text: str) -> str:
    """Returns ``text`` with secrets masked: in URLs, in ``name=value`` and ``"name": "value"``, and known tokens."""
    if "://" in text:
        text = _URL.sub(lambda match: _mask_url(match[0]), text)
    if "=" in text or ":" in text:
        text = _mask_pairs(text)
    text = _KNOWN.sub(MASK, text)
    return _BEARER.sub(rf"\1\2{MASK}", text)


def _mask_url(rest: str) -> str:
    """Masks the secrets in a URL; ``rest`` is the URL from ``://`` on."""
    head, *pieces = _CUT.split(rest)
    host, *segments = head.removeprefix("://").split("/")
    if "@" in host:
        host = f"{MASK}@{host.rpartition('@')[2]}"
    leads = False
    for number, segment in enumerate(segments):
        if (leads and _is_short_token(segment)) or _is_token(segment):
            segments[number] = MASK
        leads = leads or _LEADS_TO_TOKEN.search(segment) is not None
    for number in range(1, len(pieces), 2):
        name, equals, value = pieces[number].partition("=")
        if equals and value and is_secret_name(unquote(name), parameter=True):
            pieces[number] = f"{name}={MASK}"
    return f"://{'/'.join([host, *segments])}{''.join(pieces)}"


def _is_short_token(segment: str) -> bool:
    return len(segment) >= _SHORT_TOKEN or any(char.isdigit() for char in segment)


def _is_token(segment: str) -> bool:
    """Returns whether a part of a path looks random: it is neither words with hyphens, nor a hexadecimal id."""
    if len(segment) < _TOKEN or not any(char.isdigit() for char in segment) or _HEX_ID.fullmatch(segment):
        return False
    mixed = segment != segment.lower() and segment != segment.upper()
    return mixed or _RUN.search(segment) is not None


def _mask_pairs(text: str) -> str:
    found, end = [], 0
    for match in _NAME.finditer(text):
        quote, name, sign = match.groups()
        if match.start() < end:
            continue  # inside a value that is masked
        if sign == ":" and not quote and not _HEADER.search(name):
            continue  # prose
        parameter = text[match.start() - 1 : match.start()] in ("?", "&") and sign == "="
        if is_secret_name(name, parameter=parameter) and (value := _VALUE.match(text, match.end())):
            found += [text[end : match.end()], MASK]
            end = value.end()
    return "".join([*found, text[end:]]) if found else text


def unmask(edited: Any, original: Any) -> Any:
    """Returns ``edited`` with its masked values restored from ``original``.

    Raises:
        ValueError: a mask is where the original has no value, in a text that was changed, or in a list whose length was
            changed.
    """
    if isinstance(edited, str) and MASK in edited:
        if original is None:
            raise ValueError(f"{MASK} stands where the job had no value: write the value out")
        if edited != MASK and edited != mask(original):
            raise ValueError(f"{MASK} stands in a text that was changed: write the text out")
        return original
    if isinstance(edited, dict):
        known = original if isinstance(original, dict) else {}
        return {name: unmask(item, known.get(name)) for name, item in edited.items()}
    if isinstance(edited, list):
        items = original if isinstance(original, list) else []
        if MASK in edited and len(edited) != len(items):  # it is ambiguous
            raise ValueError(f"{MASK} stands in a list of another length than the job's: write its values out")
        return [unmask(item, items[i] if i < len(items) else None) for i, item in enumerate(edited)]
    return edited


def without_path(endpoint: str) -> str:
    """Returns an endpoint's name, or the origin of a URL, because its path may contain a token."""
    parts = urlsplit(endpoint)
    return f"{parts.netloc}/..." if parts.scheme in ("http", "https") else endpoint
