"""`pgfanout listen` and `pgfanout publish`."""

from __future__ import annotations

import argparse
import json
import sys

from ..backends.postgres.history.script import reporting
from ..backends.postgres.history.status import is_installed
from ..delivery.subscription import Subscription
from ..event import CLOSE_EVENT
from ..hub import NotifyHub
from ..settings import Settings
from .parser import Commands, add_command, add_schema, add_url, url_for

__all__ = ["add_to"]


def add_to(commands: Commands) -> None:
    """Add the commands to a parser's."""
    listen = add_command(commands, "listen", "print the events of channels, one JSON object a line", _listen)
    listen.add_argument("channels", metavar="CHANNEL", nargs="+")
    listen.add_argument("--count", type=int, metavar="N", help="end after this many events (never)")
    publish = add_command(commands, "publish", "publish one event", _publish)
    publish.add_argument("channel", metavar="CHANNEL")
    publish.add_argument("payload", metavar="JSON", help="the payload, or - to read it from standard input")
    publish.add_argument("--type", default="", help="the event's type (none)")
    whose = "the tenant: a UUID, a number or text (none)"
    listen.add_argument("--tenant", action="append", help=f"{whose}; may be repeated")
    publish.add_argument("--tenant", help=whose)
    for parser in (listen, publish):
        add_schema(parser)
        parser.add_argument("--postgres-channel", help="the NOTIFY channel that hubs listen on (pgfanout_events)")
        add_url(parser)


def _listen(options: argparse.Namespace) -> int:
    with _hub(options) as hub:
        with reporting(lambda: hub.subscribe(options.channels, options.tenant)) as subscription:
            sys.stderr.write("listening\n")
            _print_events(subscription, options.count)
    return 0


def _print_events(subscription: Subscription, count: int | None) -> None:
    for number, event in enumerate(subscription, 1):
        if event is CLOSE_EVENT:
            return
        shown = {"channel": event.channel, "type": event.type, "id": event.id, "payload": event.json()}
        sys.stdout.write(json.dumps(shown, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        if number == count:
            return


def _publish(options: argparse.Namespace) -> int:
    payload = (sys.stdin.read() if options.payload == "-" else options.payload).encode()
    with _hub(options) as hub:
        reporting(lambda: hub.publish(options.channel, options.tenant, payload, type=options.type))
    return 0


def _hub(options: argparse.Namespace) -> NotifyHub:
    """Return the application's hub, or else one for the database as it is."""
    url = url_for(options)
    if options.settings is not None:
        given = options.settings.values
    else:
        schema = options.schema or "pgfanout"
        given = {"HISTORY": is_installed(url, schema), "HISTORY_SCHEMA": schema}
    chosen = {"POSTGRES_CHANNEL": options.postgres_channel, "HISTORY_SCHEMA": options.schema}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    return Settings({**given, **chosen, "URL": url, "DATABASE_URL": None}).new_hub()
