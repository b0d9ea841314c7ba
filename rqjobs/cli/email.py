"""``rqjobs email``: templates, previews, the suppression list."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rqjobs.cli.output import json_option, print_json, print_table, say, typed
from rqjobs.cli.params import InvalidInput, read_json
from rqjobs.config.addresses import parse_address


@click.group()
def email() -> None:
    """Show mail templates, and the list of suppressed addresses."""


@email.command()
@json_option
def templates(*, as_json: bool) -> None:
    """List your templates and the built-in ones.

    Yours are in EMAIL_TEMPLATES.
    """
    from rqjobs import mail

    found = mail.template_names()
    if as_json:
        print_json([{"name": name, "where": where} for name, where in found.items()])
    else:
        print_table(("template", "where"), found.items())


@email.command()
@click.argument("template")
@click.option("--data", default="{}", metavar="(JSON | @FILE | -)", help="The template's variables.")
@click.option("--subject", metavar="TEXT", help="The subject; by default that of the template.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="The folder to write to; by default RQJOBS_DATA/mail/preview.")  # fmt: skip
@json_option
def preview(template: str, *, data: str, subject: str | None, out: Path | None, as_json: bool) -> None:
    """Render TEMPLATE with --data, as it would be sent.

    Writes TEMPLATE.html and TEMPLATE.txt.
    """
    from rqjobs import mail
    from rqjobs.config.settings import data_folder

    variables = read_json(data)
    if not isinstance(variables, dict):
        raise InvalidInput("--data: a JSON object with the template's variables is needed")
    try:
        content = mail.render(template, variables, subject=subject)
    except mail.TemplateFault as fault:
        if subject is not None or "'subject' is missing" not in str(fault):
            raise
        content = mail.render(template, variables, subject=template)
    folder = out or data_folder() / "mail" / "preview"
    files = {"html": content.html, "text": content.text}
    document: dict[str, Any] = {"subject": content.subject}
    try:
        for kind, ending in (("html", "html"), ("text", "txt")):
            if (text := files[kind]) is not None:
                path = folder / f"{template}.{ending}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
                document[kind] = str(path)
    except OSError as error:
        raise InvalidInput(f"--out: {error}") from None
    if as_json:
        print_json(document)
        return
    for name, value in document.items():
        say(f"{name + ':':9}{value}")


@email.group()
def suppressions() -> None:
    """Addresses to which no mail is sent.

    A mail server has refused them for good, or you have suppressed them. They stay suppressed until they are lifted.
    """


@suppressions.command("list")
@json_option
def list_(*, as_json: bool) -> None:
    """List the suppressed addresses, newest first, each with its reason."""
    from rqjobs.database.suppressions import list_suppressions

    found = list_suppressions()
    if as_json:
        print_json([asdict(one) for one in found])
    elif not found:
        say("no suppressed addresses")
    else:
        rows = ((one.address, one.created_at, one.reason, one.job_id) for one in found)
        print_table(("address", "since", "reason", "job"), rows)


@suppressions.command()
@click.argument("addresses", metavar="ADDRESS ...", nargs=-1, required=True)
@click.option("--reason", default="suppressed by hand", show_default=True, metavar="TEXT")
def add(addresses: tuple[str, ...], *, reason: str) -> None:
    """Send no more mails to ADDRESS.

    For bounces and complaints that arrive in other ways.
    """
    from rqjobs.database.suppressions import suppress

    suppress({_address(text): reason for text in addresses})
    say(f"suppressed: {len(addresses)}")


@suppressions.command()
@click.argument("addresses", metavar="ADDRESS ...", nargs=-1, required=True)
@json_option
def lift(addresses: tuple[str, ...], *, as_json: bool) -> int:
    """Send mails to ADDRESS again."""
    from rqjobs.database.suppressions import lift as lift_addresses

    lifted = lift_addresses([_address(text) for text in addresses])
    if as_json:
        print_json({"lifted": lifted})
    else:
        say(f"lifted: {', '.join(lifted) or 'none; see: ' + typed('email suppressions list')}")
    return 0 if len(lifted) == len(addresses) else 1


def _address(text: str) -> str:
    try:
        return parse_address(text).address
    except ValueError as error:
        raise InvalidInput(f"{text!r}: {error}") from None
