"""``rqjobs sandbox``: test doubles of providers' APIs on loopback, for trying things out."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import click

from rqjobs.cli.output import say
from rqjobs.security.signing import parse_secret
from rqjobs.testing.sandbox.mail import MailAPI, Sent
from rqjobs.testing.sandbox.manychat import DEFAULT_TOKEN, ManyChatSandbox
from rqjobs.testing.sandbox.receiver import Received, Receiver, signing_secret
from rqjobs.testing.sandbox.server import LocalServer


@click.group()
def sandbox() -> None:
    """Run a test double of a provider's API on loopback."""


@sandbox.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", default=8787, show_default=True, help="The port to listen on; 0 for any free one.")
@click.option(
    "--token",
    "tokens",
    multiple=True,
    metavar="PAGE:SECRET",
    default=(DEFAULT_TOKEN,),
    show_default=True,
    help="A token to accept, each with its own account; may be given several times.",
)
def manychat(host: str, port: int, tokens: tuple[str, ...]) -> None:
    """ManyChat's public API, with its limits, errors and quirks. Accounts exist in memory until Ctrl-C."""
    for token in tokens:
        page, colon, secret = token.partition(":")
        if not (page.isdigit() and colon and secret):
            raise click.BadParameter("a token is <page id>:<secret>, such as 1000:sandbox", param_hint="--token")
    with _listening(host, port):
        api = ManyChatSandbox(tokens, host=host, port=port)
    say(f"A test double of ManyChat runs on {api.url}; its state is at {api.url}/sandbox/state; Ctrl-C ends it.")
    say(f"In another terminal:\n  export MANYCHAT_API_URL={api.url} MANYCHAT_API_TOKEN={tokens[0]}")
    _serve(api)


@sandbox.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8977, show_default=True, help="0 for any free one.")
@click.option("--secret", "more", multiple=True, metavar="whsec_...", help="A further accepted secret.")
def webhooks(port: int, more: tuple[str, ...]) -> None:
    r"""A webhook receiver that checks signatures.

    The path of the URL selects a failure:

    \b
    /ok          204 if the signature is valid
    /flaky/2     fails twice for each delivery, then succeeds
    /status/404  responds with this status
    /gone        410: the endpoint is disabled
    /slow/5      responds after 5 seconds
    """
    from rqjobs.config.settings import get_settings

    for secret in more:
        try:
            parse_secret(secret)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--secret") from None
    configured = [secret.get_secret_value() for secret in get_settings().webhook_signing_secret]
    first, *others = configured or [signing_secret()]
    with _listening("127.0.0.1", port):
        receiver = Receiver(first, port=port, more_secrets=[*others, *more], on_request=_show)
    say(f"A webhook receiver runs on {receiver.url}/ok; Ctrl-C ends it.")
    say("In every other terminal:\n  export WEBHOOK_ALLOW=127.0.0.1")
    if not configured:
        say(f"  export WEBHOOK_SIGNING_SECRET={first}")
    say("")
    _serve(receiver)


@sandbox.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8978, show_default=True, help="0 for any free one.")
def mail(port: int) -> None:
    """SendGrid's and Resend's APIs, which show the mails.

    They check each mail as the real ones do, and send nothing.
    """
    with _listening("127.0.0.1", port):
        api = MailAPI(port=port, on_sent=_show_mail)
    say(f"Test doubles of SendGrid and Resend run on {api.url}; Ctrl-C ends them.")
    say("In every other terminal, one of the two:")
    for name in ("resend", "sendgrid"):
        upper = name.upper()
        say(f"  export EMAIL_BACKEND={name} {upper}_API_URL={api.url} {upper}_API_KEY={api.key}")
    say("")
    _serve(api)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None


def _serve(server: LocalServer) -> None:
    with server:
        threading.Event().wait()


def _show(request: Received) -> None:
    verified = "signature verified" if request.verified else "WRONG SIGNATURE"
    webhook_id, body = request.headers.get("webhook-id", "(no id)"), request.body.decode(errors="replace")
    say(f"{request.path} {webhook_id} {verified}, answered {request.status}: {body}")


def _show_mail(sent: Sent) -> None:
    people = sent.payload.get("to") or [box["email"] for box in sent.payload["personalizations"][0]["to"]]
    say(f"{sent.path} to {', '.join([people] if isinstance(people, str) else people)}: {sent.payload['subject']}")
