"""The examples of all commands, which ``--help`` shows below the options."""

from __future__ import annotations

import click

EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "rqjobs demo                   # jobs of all five kinds, in a minute",
        "rqjobs dev                    # Redis, a worker and the dashboard",
        "rqjobs health; rqjobs doctor  # is it healthy, and how to fix it",
        "rqjobs failed groups          # which jobs died, and why",
    ),
    "worker": (
        "rqjobs worker                 # all queues",
        "rqjobs worker webhooks email  # only these two",
        "rqjobs worker --processes 4 --health-port 8080",
        "rqjobs worker --burst         # end when no job waits: for cron and serverless",
    ),
    "enqueue": (
        """rqjobs enqueue webhook '{"webhookId": "wh_1", "event": "qr.scanned",""",
        """                         "url": "https://example.com/hook", "payload": {"code": "A"}}'""",
        "rqjobs enqueue email @mail.json --delay 1h --id booking-4711",
        "rqjobs enqueue data-export - --wait 60 < export.json",
    ),
    "health": (
        "rqjobs health",
        "rqjobs health --json | jq '.queues[] | select(.healthy | not)'",
    ),
    "queues": (
        "rqjobs queues",
        "rqjobs queues --json | jq '.queues[] | {name, timeout}'",
    ),
    "pause": ("rqjobs pause email",),
    "resume": ("rqjobs resume email",),
    "jobs": ("rqjobs jobs show 0660ffd5b0a8a30ea7544c88",),
    "jobs show": (
        "rqjobs jobs show 0660ffd5b0a8a30ea7544c88",
        "rqjobs jobs show booking-4711 --json | jq .history",
    ),
    "jobs run-now": ("rqjobs jobs run-now booking-4711",),
    "jobs stop": ("rqjobs jobs stop 0660ffd5b0a8a30ea7544c88",),
    "jobs delete": ("rqjobs jobs delete booking-4711",),
    "schedules": ("rqjobs schedules list", "rqjobs schedules show nightly"),
    "schedules list": ("rqjobs schedules list",),
    "schedules show": ("rqjobs schedules show nightly --json | jq .ticks",),
    "schedules add": (
        "rqjobs schedules add nightly data-export @export.json --cron '0 3 * * *'",
        "rqjobs schedules add ping webhook @ping.json --every 5m --overlap skip",
    ),
    "schedules pause": ("rqjobs schedules pause nightly",),
    "schedules resume": ("rqjobs schedules resume nightly",),
    "schedules run-now": ("rqjobs schedules run-now nightly",),
    "schedules remove": ("rqjobs schedules remove nightly",),
    "batches": ("rqjobs batches list", "rqjobs batches show 0661886815d1139db65420c5"),
    "batches list": ("rqjobs batches list --json | jq '.batches[] | select(.state == \"dead\")'",),
    "batches show": ("rqjobs batches show 0661886815d1139db65420c5",),
    "batches cancel": ("rqjobs batches cancel 0661886815d1139db65420c5",),
    "batches requeue-dead": ("rqjobs batches requeue-dead 0661886815d1139db65420c5",),
    "failed": (
        "rqjobs failed groups                                     # counted by error",
        "rqjobs failed requeue --group 3f2a91c07d1e46b8 --canary  # one first, then the others at a rate",
        "rqjobs failed list --queue webhooks --reason 503",
        "rqjobs failed show 0660ffd5b0a8a30ea7544c88",
    ),
    "failed list": (
        "rqjobs failed list",
        "rqjobs failed list --queue webhooks --reason 503 --limit 20",
    ),
    "failed groups": ("rqjobs failed groups", "rqjobs failed groups --queue email --json"),
    "failed show": ("rqjobs failed show 0660ffd5b0a8a30ea7544c88",),
    "failed requeue": (
        "rqjobs failed requeue 0660ffd5b0a8a30ea7544c88",
        "rqjobs failed requeue --group 3f2a91c07d1e46b8 --dry-run  # only count them",
        "rqjobs failed requeue --group 3f2a91c07d1e46b8 --canary --rate 50",
        "rqjobs failed requeue --queue webhooks --reason 503",
    ),
    "failed purge": (
        "rqjobs failed purge --group 3f2a91c07d1e46b8 --dry-run",
        "rqjobs failed purge --queue email --reason 'no such user'",
    ),
    "doctor": (
        "rqjobs doctor",
        "rqjobs doctor --online      # before a release: also check the providers' credentials",
        "rqjobs doctor --every-job   # after a crash: find jobs that are in no list",
        "rqjobs doctor --json        # for monitoring",
    ),
    "dashboard": (
        "rqjobs dashboard",
        "rqjobs dashboard --host 0.0.0.0 --port 8080  # behind a proxy with https",
    ),
    "webhooks": (
        "rqjobs webhooks deliveries --outcome dead",
        "rqjobs webhooks replay --endpoint shop --since 2h",
    ),
    "webhooks endpoints": ("rqjobs webhooks endpoints",),
    "webhooks add": ("rqjobs webhooks add shop https://shop.example/hooks --event 'booking.*'",),
    "webhooks rotate": ("rqjobs webhooks rotate shop --keep 48h",),
    "webhooks remove": ("rqjobs webhooks remove shop",),
    "webhooks enable": ("rqjobs webhooks enable shop",),
    "webhooks disable": ("rqjobs webhooks disable shop --reason 'shop closed'",),
    "webhooks destinations": ("rqjobs webhooks destinations",),
    "webhooks deliveries": (
        "rqjobs webhooks deliveries --endpoint shop --since 2h",
        "rqjobs webhooks deliveries --outcome dead --limit 200",
    ),
    "webhooks show": ("rqjobs webhooks show 0660ffd5b0a8a30ea7544c88",),
    "webhooks replay": (
        "rqjobs webhooks replay 0660ffd5b0a8a30ea7544c88",
        "rqjobs webhooks replay --endpoint shop --since 2026-11-23T22:00 --dry-run",
        "rqjobs webhooks replay --endpoint shop --since 2h --pace 5",
    ),
    "outbox": ("rqjobs outbox status",),
    "outbox relay": ("rqjobs outbox relay",),
    "outbox status": ("rqjobs outbox status",),
    "exports": ("rqjobs exports list --user shop_1",),
    "exports list": ("rqjobs exports list --user shop_1",),
    "exports link": ("rqjobs exports link 0660ffd5b0a8a30ea7544c88",),
    "exports purge": ("rqjobs exports purge --dry-run",),
    "email": ('rqjobs email preview welcome --data \'{"name": "Ada"}\'',),
    "email templates": ("rqjobs email templates",),
    "email preview": (
        "rqjobs email preview welcome",
        """rqjobs email preview welcome --data '{"name": "Ada"}' --out /tmp""",
    ),
    "email suppressions": ("rqjobs email suppressions list",),
    "email suppressions list": ("rqjobs email suppressions list",),
    "email suppressions add": ("rqjobs email suppressions add ada@example.com",),
    "email suppressions lift": ("rqjobs email suppressions lift ada@example.com",),
    "dev": ("rqjobs dev", "rqjobs dev --no-worker  # the worker runs in your debugger"),
    "demo": ("rqjobs demo",),
    "analytics": ("rqjobs analytics report --since 2026-11-01",),
    "analytics report": ("rqjobs analytics report --qr-code table-7 --since 2026-11-01 --until 2026-11-30",),
    "analytics purge": ("rqjobs analytics purge --older-than 400d",),
    "db": ("rqjobs db init",),
    "db init": ("DATABASE_URL=postgresql://app:secret@db/app rqjobs db init",),
    "db reencrypt": ("rqjobs db reencrypt --dry-run", "rqjobs db reencrypt"),
    "sandbox": ("rqjobs sandbox webhooks",),
    "sandbox webhooks": ("rqjobs sandbox webhooks",),
    "sandbox manychat": ("rqjobs sandbox manychat",),
    "sandbox mail": ("rqjobs sandbox mail",),
    "completion": (
        "rqjobs completion bash > ~/.local/share/bash-completion/completions/rqjobs",
        "rqjobs completion zsh > ~/.zfunc/_rqjobs",
        "rqjobs completion fish > ~/.config/fish/completions/rqjobs.fish",
    ),
}


def epilog(path: str) -> str:
    """Returns the examples of the command at ``path``, in a block whose lines click does not wrap."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in EXAMPLES[path])))


def teach(command: click.Command, path: str) -> None:
    """Adds the examples of ``command``, and of all its subcommands, to their help."""
    if path in EXAMPLES:
        command.epilog = epilog(path)
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            teach(each, f"{path} {name}".strip())
