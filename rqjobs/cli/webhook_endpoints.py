"""The commands of ``rqjobs webhooks`` about endpoints and destinations."""

from __future__ import annotations

from dataclasses import asdict

import click

from rqjobs.cli.output import json_option, print_json, print_table, say, typed
from rqjobs.config.durations import parse_duration
from rqjobs.security.masking import mask


@click.command("endpoints")
@json_option
def endpoints_(*, as_json: bool) -> None:
    """List endpoints: their events, and whether they answer."""
    from rqjobs.database import get_engine
    from rqjobs.database import webhook_endpoints as table

    found = table.list_endpoints(get_engine())
    if as_json:
        keep = ("name", "url", "events", "enabled", "reason", "failing_since", "created_at")
        print_json([mask({name: value for name, value in asdict(each).items() if name in keep}) for each in found])
        return
    if not found:
        say(f"no endpoints; register one with: {typed('webhooks add NAME URL')}")
        return
    print_table(
        ("name", "url", "events", "state", "failing since"),
        (
            (
                each.name if each.name != each.url else "(not registered)",
                mask(each.url),
                " ".join(each.events),
                "enabled" if each.enabled else f"disabled: {each.reason}",
                each.failing_since,
            )
            for each in found
        ),
    )


@click.command()
@json_option
def destinations(*, as_json: bool) -> None:
    """List destinations that do not answer, and parked deliveries."""
    from rqjobs.processors.webhook.breaker import breakers

    found = breakers()
    if as_json:
        print_json([asdict(each) for each in found])
        return
    if not found:
        say("every destination answers, nothing is parked")
        return
    print_table(
        ("destination", "breaker", "failures in a row", "parked", "next try"),
        ((x.destination, x.state, x.failures, x.parked, x.next_try) for x in found),
        right=("failures in a row", "parked"),
    )


@click.command()
@click.argument("name")
@click.argument("url")
@click.option(
    "--event", "events", multiple=True, metavar="PATTERN", help="booking.created, booking.* or * (a new one's default)."
)
@click.option("--secret", metavar="whsec_...", help="The secret, if the receiver has one already.")
@click.option("--replace", is_flag=True, help="Change the endpoint if it is registered.")
@json_option
def add(*, name: str, url: str, events: tuple[str, ...], secret: str | None, replace: bool, as_json: bool) -> None:
    """Register an endpoint, or change one with --replace.

    The events and the secret of a registered endpoint do not change unless they are given.
    """
    from rqjobs import webhooks as api

    endpoint, signing = api.add_endpoint(name, url, events=events or None, secret=secret, replace=replace)
    if signing is not None:
        _tell_secret(endpoint.name, signing, as_json=as_json)
    elif as_json:
        print_json({"name": name})
    else:
        say(f"{name} is changed; its secret is as before")
        if not endpoint.enabled:
            say(f"it is disabled: {endpoint.reason}; once fixed, {typed(f'webhooks enable {name}')}")


@click.command()
@click.argument("name")
@click.option("--keep", default="24h", show_default=True, help="The time for which the previous secret also signs.")
@json_option
def rotate(*, name: str, keep: str, as_json: bool) -> None:
    """Make a new secret for an endpoint."""
    from rqjobs.database import get_engine
    from rqjobs.database import webhook_endpoints as table

    secret = table.rotate_secret(get_engine(), name, keep_previous=parse_duration(keep))
    _tell_secret(name, secret, as_json=as_json)


def _tell_secret(name: str, secret: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"name": name, "secret": secret})
        return
    say(f"{name} verifies with this secret; it is shown this once:\n{secret}")


@click.command()
@click.argument("name")
def remove(*, name: str) -> None:
    """Delete an endpoint; its deliveries stay in the log."""
    from rqjobs.database import get_engine
    from rqjobs.database import webhook_endpoints as table

    table.remove_endpoint(get_engine(), name)
    say(f"removed {name}")


@click.command()
@click.argument("endpoint", metavar="NAME|URL")
@json_option
def enable(*, endpoint: str, as_json: bool) -> None:
    """Enable an endpoint, so that deliveries are sent to it again."""
    from rqjobs.database import get_engine
    from rqjobs.database import webhook_endpoints as table

    names = table.set_enabled(get_engine(), endpoint, reason=None)
    if as_json:
        print_json({"enabled": names})
        return
    say(f"enabled {', '.join(names)}; send what it missed with: {typed(f'webhooks replay --endpoint {endpoint}')}")


@click.command()
@click.argument("endpoint", metavar="NAME|URL")
@click.option("--reason", default="by hand", show_default=True)
@json_option
def disable(*, endpoint: str, reason: str, as_json: bool) -> None:
    """Disable an endpoint.

    Its deliveries become dead letters.
    """
    from rqjobs.database import get_engine
    from rqjobs.database import webhook_endpoints as table

    names = table.set_enabled(get_engine(), endpoint, reason=reason)
    if as_json:
        print_json({"disabled": names})
        return
    say(f"disabled {', '.join(names)}")


COMMANDS = (endpoints_, add, rotate, remove, enable, disable, destinations)
"""The commands that ``rqjobs.cli.webhooks`` adds to its group."""
