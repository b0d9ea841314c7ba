"""``rqjobs sandbox``: other people's APIs on loopback, for trying things out."""

from __future__ import annotations

import click

from rqjobs.sandbox.manychat import DEFAULT_TOKEN, ManyChatSandbox


@click.group()
def sandbox() -> None:
    """Play somebody else's API on loopback."""


@sandbox.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The interface to listen on.")
@click.option("--port", default=8787, show_default=True, help="The port to listen on; 0 takes any free one.")
@click.option(
    "--token",
    "tokens",
    multiple=True,
    metavar="PAGE:SECRET",
    default=(DEFAULT_TOKEN,),
    show_default=True,
    help="A token to accept, with an account of its own; may be given several times.",
)
def manychat(host: str, port: int, tokens: tuple[str, ...]) -> None:
    """ManyChat's public API, with its limits, errors and quirks. Accounts live in memory until Ctrl-C."""
    for token in tokens:
        page, colon, secret = token.partition(":")
        if not (page.isdigit() and colon and secret):
            raise click.BadParameter("a token is <page id>:<secret>, such as 1000:sandbox", param_hint="--token")
    try:
        api = ManyChatSandbox(tokens, host=host, port=port)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    click.echo(f"ManyChat is played on {api.url}; see its state at {api.url}/sandbox/state; Ctrl-C ends it.")
    click.echo(f"In another terminal:\n  export MANYCHAT_API_URL={api.url} MANYCHAT_API_TOKEN={tokens[0]}")
    api.serve()
