"""All settings, read from the environment and from ``.env``."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rqjobs.config.addresses import check_address
from rqjobs.config.backoff import MAX_ATTEMPTS, Backoff, parse_backoff
from rqjobs.config.durations import Rate, parse_duration, parse_rate
from rqjobs.config.file_urls import Place, is_remote
from rqjobs.config.private_files import close_folder, make_private_folder
from rqjobs.errors import InvalidSettings
from rqjobs.security.signing import parse_secret
from rqjobs.security.ssrf import DEFAULT_PORTS

Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""A duration such as ``30`` (seconds), ``30s``, ``5m``, ``1h``, ``2d``."""

Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(lambda v: tuple(v.split()) if isinstance(v, str) else v)]
"""Words separated by blanks."""

_REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "embedded")
_ENCODE = "percent-encode user and password: @ is %40, / is %2F, # is %23, ? is %3F"
_QUEUE_SETTING = re.compile(
    r"RQJOBS_([A-Z0-9_]+?)_(ATTEMPTS|BACKOFF|TIMEOUT|CONCURRENCY|RATE|GROUP_CONCURRENCY|GROUP_RATE|GROUP_ORDER)"
)


def split_url(url: str) -> SplitResult:
    """Splits ``url``, after checking that no part of an unencoded password is in another part.

    Raises:
        ValueError: the password may need percent-encoding. The message does not show the URL.
    """
    try:
        parts = urlsplit(url)
        torn = parts.netloc.count("@") > 1 or (parts.netloc and "@" in f"{parts.path}{parts.query}{parts.fragment}")
        _port = None if torn or parts.scheme == "redis+sentinel" else parts.port  # its property checks it
    except ValueError:
        raise ValueError(f"no URL, or its port is no number up to 65535; {_ENCODE}") from None
    if torn:
        raise ValueError(_ENCODE)
    return parts


def _with_password(url: str, password: str) -> str:
    """Returns ``url`` with ``password``, percent-encoded, if it names a server and has no password."""
    scheme, mark, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    if not mark or scheme.startswith("sqlite") or ":" in user:
        return url
    return f"{scheme}://{user}:{quote(password, safe='')}@{host if at else rest}"


def _check_redis_url(url: SecretStr) -> SecretStr:
    if url.get_secret_value().split(":", 1)[0] not in _REDIS_SCHEMES:
        raise ValueError(f"the scheme is none of {', '.join(_REDIS_SCHEMES)}")
    return _check_url(url)


def _check_url(url: SecretStr) -> SecretStr:
    split_url(url.get_secret_value())
    return url


def _check_http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not an http:// or https:// URL")
    return url.rstrip("/")


def _check_nameservers(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        try:
            parts = urlsplit(f"//{server}")
            ipaddress.ip_address(parts.hostname or "")
            _port = parts.port  # its property checks it
        except ValueError:
            text = f"{server!r} is no address of a name server; write 10.0.0.2, 10.0.0.2:5353 or [2001:db8::2]:53"
            raise ValueError(text) from None
    return servers


def _check_proxies(proxies: tuple[str, ...]) -> tuple[str, ...]:
    for proxy in proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            raise ValueError(f"{proxy!r} is no address or network; write 10.0.0.2 or 10.0.0.0/24") from None
    return proxies


def _check_hosts(hosts: tuple[str, ...]) -> tuple[str, ...]:
    for host in hosts:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", host):
            raise ValueError(f"{host!r} is no host name; write it without scheme, port and path")
    return hosts


def _check_lifetime(lifetime: timedelta) -> timedelta:
    if not timedelta(minutes=1) <= lifetime <= timedelta(days=30):
        raise ValueError("not between 1m and 30d")
    return lifetime


def _check_smtp_url(url: SecretStr) -> SecretStr:
    parts = split_url(url.get_secret_value())
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError("not an SMTP URL; write smtp://user:password@host:587 or smtps://host:465")
    if unknown := set(parse_qs(parts.query)) - {"ca", "tls"}:
        raise ValueError(f"unknown option {min(unknown)!r}; there are ca=FILE and tls=off")
    return url


def _check_places(places: tuple[str, ...]) -> tuple[str, ...]:
    for place in places:
        if is_remote(place):
            try:
                Place.parse(place)
            except ValueError as error:
                raise ValueError(f"{place!r}: {error}") from None
    return places


_KEY_LENGTH = 16
"""The least length of a key or token that attackers can try to guess: 16 random characters of base64 are 96 bits."""


def _check_key(key: SecretStr) -> SecretStr:
    if len(key.get_secret_value()) < _KEY_LENGTH:
        command = 'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        raise ValueError(f"has fewer than {_KEY_LENGTH} characters and could be guessed; make one with {command}")
    return key


HttpUrl = Annotated[str, AfterValidator(_check_http_url)]
"""An http or https URL; a slash at its end is removed."""


def check_token(token: SecretStr) -> SecretStr:
    """Returns ``token`` if it can be sent in a header.

    Raises:
        ValueError: it cannot. The message does not show the token.
    """
    value = token.get_secret_value()
    if not value.isascii() or not value.isprintable() or " " in value or not value:
        raise ValueError("a token is one word of ASCII characters, as ManyChat shows it under Settings > API")
    return token


def _tokens(value: object) -> object:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ValueError('not a JSON object such as {"tool_1": "<token>"}')  # noqa: TRY004  # pydantic wants it
    return value


ManyChatToken = Annotated[SecretStr, AfterValidator(check_token)]
"""A token that can be sent in a header."""


EMAIL_BACKENDS = ("file", "smtp", "sendgrid", "resend")


class QueueSettings(BaseSettings):
    """The settings of one queue, which override its policy: ``RQJOBS_EMAIL_ATTEMPTS=5``."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    attempts: int | None = Field(None, ge=1, le=MAX_ATTEMPTS)
    backoff: Annotated[Backoff, BeforeValidator(parse_backoff)] | None = None
    timeout: Duration | None = None
    concurrency: int | None = Field(None, ge=1, le=10_000)
    rate: Annotated[Rate, BeforeValidator(parse_rate)] | None = None
    group_concurrency: int | None = Field(None, ge=1, le=10_000)
    group_rate: Annotated[Rate, BeforeValidator(parse_rate)] | None = None
    group_order: Literal["strict", "skip"] | None = None

    @classmethod
    def settings_customise_sources(cls, _settings_cls: Any, init_settings: Any, **_sources: Any) -> Any:  # type: ignore[override]
        """Reads only the values passed by Settings, because the environment's names include the queue."""
        return (init_settings,)


class Settings(BaseSettings):
    """All settings with their defaults. The project's ``.env`` lists and explains each.

    Read them with :func:`get_settings`. Secrets are ``SecretStr``, which is never shown.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    # Stores
    redis_url: Annotated[SecretStr, AfterValidator(_check_redis_url)] = SecretStr("embedded:")
    redis_password: SecretStr | None = None
    """The password for a REDIS_URL without one; it needs no percent-encoding."""
    database_url: Annotated[SecretStr, AfterValidator(_check_url)] = SecretStr("sqlite:///.rqjobs/rqjobs.db")
    database_password: SecretStr | None = None
    """The password for a DATABASE_URL without one; it needs no percent-encoding."""
    rqjobs_secret_key: Annotated[SecretStr, AfterValidator(_check_key)] | None = None
    """Encrypts stored secrets; signs download links, sessions and visitor keys; at least 16 characters. If unset, a key
    is generated under RQJOBS_DATA."""
    rqjobs_secret_key_old: SecretStr | None = None
    """Earlier keys, separated by blanks: secrets encrypted under them can be read, and ``rqjobs db reencrypt`` encrypts
    them under RQJOBS_SECRET_KEY. Jobs signed with them still run."""
    rqjobs_data: Path = Path(".rqjobs")
    """The folder of the embedded Redis, the SQLite file, mails and exports; only its owner has access."""

    # Engine
    rqjobs_lease: Duration = timedelta(seconds=30)
    rqjobs_max_payload: int = Field(256 * 1024, ge=1024)
    rqjobs_sign_jobs: bool = False
    """Sign each job with RQJOBS_SECRET_KEY when it is enqueued, and run only jobs with a valid signature."""
    rqjobs_keep_failed: int = Field(500, ge=1)
    rqjobs_keep_completed: int = Field(100, ge=1)
    rqjobs_import: Words = ()
    """Modules of the app that register queues, sources and hooks; imported before any job runs."""
    rqjobs_outbox_every: Duration = timedelta(seconds=1)
    """The interval at which workers read the transactional outbox; 0 for never, if ``rqjobs outbox relay`` runs."""
    rqjobs_cron_token: Annotated[SecretStr, AfterValidator(_check_key)] | None = None
    """The token with which a platform's cron starts ``rqjobs.integrations.burst``; at least 16 characters."""

    # Webhooks
    webhook_signing_secret: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    webhook_legacy_secret: SecretStr | None = None
    """If set, the headers X-Webhook-* are sent too; X-Webhook-Signature is the hex HMAC-SHA256 of the body under it."""
    webhook_allow: Words = ()
    """Hosts, addresses and networks exempt from the SSRF guard, for development."""
    webhook_ports: Annotated[frozenset[int], NoDecode] = DEFAULT_PORTS
    """The allowed ports of hosts that are not in WEBHOOK_ALLOW."""
    webhook_nameservers: Annotated[Words, AfterValidator(_check_nameservers)] = ()
    """The name servers, instead of those of /etc/resolv.conf: addresses, with ``:port`` if it is not 53."""
    webhook_timeout: Duration = timedelta(seconds=15)
    """The time limit of a delivery, from the first DNS query to the last byte of the response."""
    webhook_retry_after_max: Duration = timedelta(hours=24)
    """The longest wait that a Retry-After can cause."""
    webhook_ca_file: Path | None = None
    """Certificate authorities to trust instead of certifi's."""
    webhook_disable_after: Duration = timedelta(days=5)
    """An endpoint that has failed for this time without a success is disabled."""
    webhook_log_keep: Duration = timedelta(days=30)
    """The time for which the delivery log is kept."""
    webhook_breaker_failures: int = Field(10, ge=1)
    """The number of consecutive deliveries without an answer that opens the circuit breaker of a destination ..."""
    webhook_breaker_after: Duration = timedelta(seconds=10)
    """... after this time without an answer, so that a restart of the receiver does not open it."""
    webhook_breaker_pause: Duration = timedelta(seconds=10)
    """The time for which an open breaker parks deliveries before a trial delivery; doubles up to five minutes."""
    webhook_pace: float = Field(50, gt=0)
    """The rate, per second, at which parked deliveries to one destination resume."""

    # ManyChat
    manychat_api_token: ManyChatToken | None = None
    """The token of every tool that MANYCHAT_API_TOKENS does not name: ``<page id>:<secret>``."""
    manychat_api_tokens: Annotated[Mapping[str, ManyChatToken], NoDecode, BeforeValidator(_tokens)] = Field(
        default_factory=dict
    )
    """Tokens by tool id, as JSON: ``{"tool_1": "<page id>:<secret>"}``."""
    manychat_api_url: HttpUrl = "https://api.manychat.com"
    manychat_merge_window: Duration = timedelta(seconds=1)
    """The time that the first change of a contact with ``merge`` waits for more changes."""

    # Email
    email_backend: Literal["file", "smtp", "sendgrid", "resend"] = "file"
    """``file`` writes .eml files to RQJOBS_DATA/mail and sends nothing."""
    rqjobs_email_backend: Literal["file", "smtp", "sendgrid", "resend"] | None = None
    """Overrides EMAIL_BACKEND, which Django projects may need for a class of Django; such a value is ignored."""
    email_from: Annotated[str, AfterValidator(check_address)] = "rqjobs <noreply@localhost.localdomain>"
    """The default sender; its name is the brand in our templates."""
    email_templates: Path = Path("templates/email")
    """The folder of the app's templates, which is searched before the built-in ones."""
    email_unknown_outcome: Literal["retry", "hold"] = "retry"
    """The outcome for a mail whose worker died while it was sent: ``retry`` may send it twice, ``hold`` makes it a dead
    letter for a person to decide."""
    email_attachments: Annotated[Words, AfterValidator(_check_places)] = ()
    """The allowed locations of attachments: folders, and URLs (https, s3 ...) that contain them; by default none."""
    email_max_attachments: int = Field(20 * 1024 * 1024, ge=0)
    """The most bytes of all attachments of one mail together."""
    smtp_url: Annotated[SecretStr, AfterValidator(_check_smtp_url)] = SecretStr("smtp://localhost:587")
    """``smtp://user:password@host:587`` (STARTTLS, required except on loopback) or ``smtps://host:465``; ``?ca=FILE``
    trusts your own certificate authority, ``?tls=off`` sends unencrypted and without a login."""
    sendgrid_api_key: SecretStr | None = None
    sendgrid_api_url: HttpUrl = "https://api.sendgrid.com"
    resend_api_key: SecretStr | None = None
    resend_api_url: HttpUrl = "https://api.resend.com"
    resend_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = Rate(2, timedelta(seconds=1))
    """The rate of requests of all workers together; Resend allows two per second unless your account has another limit.
    """

    # Analytics
    analytics_retention: Duration = timedelta(days=400)
    """The time for which raw QR events are kept after they were recorded; the counts for reports are kept for ever."""

    # Export
    export_url: str = ".rqjobs/exports"
    """The store for finished exports: a folder, or any fsspec URL such as s3://bucket/exports."""
    export_keep: Duration = timedelta(days=7)
    """The time after which a finished export is deleted."""
    export_link_url: HttpUrl | None = None
    """The URL at which the app serves rqjobs.web.downloads, such as https://app.example.com/exports; links append a
    token."""
    export_link_lifetime: Duration = timedelta(days=1)
    """The lifetime of a download link; a new one can be made as long as the file is kept."""
    export_csv_bom: bool = True
    """Begin CSV files with a byte order mark, so that Excel reads them as UTF-8."""
    export_csv_guard: bool = True
    """Put ' before CSV cells that a spreadsheet would run as a formula."""
    export_fonts: Annotated[tuple[Path, ...], NoDecode] = ()
    """TrueType files for PDFs, used before the installed fonts; separated by blanks."""

    # Dashboard
    dashboard_username: str = "admin"
    dashboard_password: SecretStr | None = None
    """If unset, one is generated and printed at each start."""
    dashboard_read_only: bool = False
    """Whether the dashboard allows no changes."""
    dashboard_url: HttpUrl | None = None
    """The dashboard's URL, such as https://ops.example.com; alerts link to the page that shows the cause."""
    dashboard_hosts: Annotated[Words, AfterValidator(_check_hosts)] = ()
    """Additional host names of the dashboard, besides that of DASHBOARD_URL, those of loopback, and addresses."""
    dashboard_trusted_proxies: Annotated[Words, AfterValidator(_check_proxies)] = ("127.0.0.1", "::1")
    """Addresses and networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are trusted."""
    dashboard_session_lifetime: Annotated[Duration, AfterValidator(_check_lifetime)] = timedelta(hours=12)
    """A session ends after this time, used or not."""
    dashboard_session_idle: Annotated[Duration, AfterValidator(_check_lifetime)] = timedelta(hours=2)
    """A session ends if no page was opened for this time; automatic refreshes do not count."""

    # Alerts
    alert_url: SecretStr | None = None
    """The URL that receives a POST with ``{"text": ...}`` for each alert, such as a chat's incoming webhook."""
    alert_email: str | None = None
    """The address that receives a mail for each alert, by SMTP_URL; several are separated by commas."""
    alert_every: Duration = timedelta(minutes=15)
    """The least time between two alerts of the same kind and subject."""

    queues: Annotated[Mapping[str, QueueSettings], NoDecode] = Field(default_factory=dict)
    """The settings RQJOBS_<QUEUE>_*, by the queue's name; collected by :meth:`load`."""

    @model_validator(mode="before")
    @classmethod
    def _put_passwords_into_urls(cls, given: dict[str, Any]) -> dict[str, Any]:
        for store in ("redis", "database"):
            url, password = given.get(f"{store}_url"), given.get(f"{store}_password")
            if isinstance(url, SecretStr):
                url = url.get_secret_value()
            if isinstance(password, SecretStr):
                password = password.get_secret_value()
            if url and password:
                given = {**given, f"{store}_url": _with_password(url, password)}
        return given

    @field_validator("rqjobs_sign_jobs")
    @classmethod
    def _check_key_is_shared(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("rqjobs_secret_key", "faulty") is None:
            raise ValueError("needs RQJOBS_SECRET_KEY, the same in every process that enqueues or runs jobs")
        return value

    @field_validator("webhook_signing_secret", mode="before")
    @classmethod
    def _split_secrets(cls, value: object) -> object:
        secrets = value.split() if isinstance(value, str) else value
        if isinstance(secrets, list | tuple):
            for secret in secrets:
                parse_secret(secret.get_secret_value() if isinstance(secret, SecretStr) else str(secret))
            return tuple(secrets)
        return secrets

    @field_validator("webhook_ports", "export_fonts", mode="before")
    @classmethod
    def _split_at_blanks(cls, value: object) -> object:
        return value.split() if isinstance(value, str) else value

    @classmethod
    def load(cls, overrides: Mapping[str, Any] | None = None) -> Self:
        """Returns the settings of the environment and ``.env``, checked as a whole.

        Args:
            overrides: settings of a framework, by the variables' names; they override both.

        Raises:
            InvalidSettings: the settings are invalid; the message names every fault with its variable.
        """
        given = {name: value for name, value in (overrides or {}).items() if value is not None}
        faults: list[str] = []
        queues = _queue_settings(given, faults)
        own = {name.lower(): value for name, value in given.items() if not _QUEUE_SETTING.fullmatch(name)}
        faults += [f"{name.upper()}: there is no such setting" for name in own if name not in cls.model_fields]
        if (backend := _email_backend(given)) is not None:
            own["email_backend"] = backend
        try:
            settings = cls(**{"queues": queues, **own})
        except ValidationError as error:
            faults = [*_faults(error, ""), *faults]
        if faults:
            raise InvalidSettings(faults)
        return settings


def variables() -> dict[str, str | None]:
    """Returns the variables of ``.env`` and of the environment, which overrides it.

    Raises:
        InvalidSettings: ``.env`` cannot be read.
    """
    file = Settings.model_config.get("env_file")
    try:
        return {**(dotenv_values(str(file)) if file else {}), **os.environ}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings([f"{file} cannot be read: {error}"]) from None


def _email_backend(overrides: Mapping[str, Any]) -> str | None:
    """Returns the backend if RQJOBS_EMAIL_BACKEND is set or EMAIL_BACKEND is a class of Django; otherwise None."""
    for given in (overrides, variables()):
        own, shared = given.get("RQJOBS_EMAIL_BACKEND"), given.get("EMAIL_BACKEND")
        if own or (shared and not is_of_django(shared)):
            return own if own in EMAIL_BACKENDS else None
    return "file" if is_of_django(overrides.get("EMAIL_BACKEND") or variables().get("EMAIL_BACKEND")) else None


def is_of_django(backend: object) -> bool:
    """Returns whether a value of EMAIL_BACKEND is the path of a class of Django."""
    return isinstance(backend, str) and backend.startswith("django.")


def _faults(error: ValidationError, prefix: str) -> list[str]:
    found = []
    for item in error.errors(include_url=False, include_input=False):
        name = prefix + "_".join(str(part) for part in item["loc"] if isinstance(part, str)).upper()
        message = item["msg"].removeprefix("Value error, ")
        found.append(f"{name}: {message[:1].lower()}{message[1:]}")
    return found


def _queue_settings(overrides: Mapping[str, Any], faults: list[str]) -> dict[str, QueueSettings]:
    """Returns the settings RQJOBS_<QUEUE>_* by the queue's name; appends their faults to ``faults``."""
    by_queue: dict[str, dict[str, str]] = {}
    for variable, value in {**variables(), **overrides}.items():
        if value and (match := _QUEUE_SETTING.fullmatch(variable)):
            by_queue.setdefault(match[1], {})[match[2].lower()] = value
    queues = {}
    for name, values in by_queue.items():
        try:
            queues[name.lower().replace("_", "-")] = QueueSettings(**values)  # type: ignore[arg-type]
        except ValidationError as error:
            faults.extend(_faults(error, f"RQJOBS_{name}_"))
    return queues


def is_setting(name: str) -> bool:
    """Returns whether ``name`` is the name of one of our variables, such as ``REDIS_URL``."""
    fields = Settings.model_fields
    return name.isupper() and (name.lower() in fields or _QUEUE_SETTING.fullmatch(name) is not None)


_current: Settings | None = None
_closed: set[Path] = set()
_DATABASE = "rqjobs.db"
_OWN = frozenset({"secret_key", "redis", "mail", "exports", "exports-partial"}).union(
    _DATABASE + end for end in ("", "-wal", "-shm", "-journal")
)
"""The names of the files and folders that rqjobs makes in RQJOBS_DATA."""


def get_settings() -> Settings:
    """Returns the settings of this process, read at the first call.

    Raises:
        InvalidSettings: the settings are invalid; the message names every fault with its variable.
    """
    global _current  # noqa: PLW0603
    if _current is None:
        _current = Settings.load()
    return _current


def use_settings(settings: Settings | None) -> None:
    """Sets the result of :func:`get_settings`, for frameworks with their own settings, and for tests.

    None means that the next call reads the environment again.
    """
    global _current  # noqa: PLW0603
    _current = settings


def data_folder() -> Path:
    """Returns RQJOBS_DATA; the first call makes it, and removes other users' access that older versions left.

    Raises:
        OSError: it cannot be made.
    """
    folder = get_settings().rqjobs_data
    if (where := folder.absolute()) not in _closed:
        make_private_folder(folder)
        close_folder(folder, _OWN)
        _closed.add(where)
    return folder


def close_data_folder() -> None:
    """Like :func:`data_folder`, but only if RQJOBS_DATA exists; long-running programs call it at their start."""
    if get_settings().rqjobs_data.is_dir():
        data_folder()
