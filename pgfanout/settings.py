"""Settings: an application's hub and its streams, from a mapping of names to values, for any framework."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, Final, TypeAlias

from .backends.memory import MemoryHub
from .backends.postgres import History, PostgresHub
from .delivery.tail import BUFFER_BYTES
from .errors import HubConfigurationError
from .hub import NotifyHub
from .payload import JsonDefault
from .streams import StreamEndpoint, StreamLimiter
from .streams.endpoint import check_detach

__all__ = ["DEFAULTS", "Settings", "url_of"]

_URL_NAMES: Final = ("URL", "DATABASE_URL")
"""The setting and its alias from before hubs had other schemes."""

_IN_ENVIRONMENT: Final = "PGFANOUT_{}".format
"""Returns the environment's name for a setting, which is Flask's as well."""

_HUB_DEFAULTS: Final[dict[str, Any]] = {
    **dict.fromkeys(_URL_NAMES),
    "POSTGRES_CHANNEL": "pgfanout_events",
    "BUFFER_SIZE": 32,
    "BUFFER_BYTES": BUFFER_BYTES,
    "HISTORY": False,
    **{f"HISTORY_{field.name.upper()}": field.default for field in fields(History)},
    "HEARTBEAT": 5.0,
    "HEARTBEAT_TIMEOUT": 5.0,
    "MAX_RECONNECT_DELAY": 1.5,
    "PUBLISHER_CONNECTIONS": 4,
}

DEFAULTS: Final[dict[str, Any]] = {
    **_HUB_DEFAULTS,
    "MAX_STREAMS": 5000,
    "MAX_STREAMS_PER_USER": 10,
    "THREAD_RESERVE": 2,
    "KEEPALIVE": 15.0,
    "CLIENT_TIMEOUT": 30.0,
    "START_TIMEOUT": 5.0,
    "RETRY_AFTER": 5.0,
    "DETACH": "auto",
}
"""Every setting, by its name without a prefix. The type of the default is the setting's."""

_SCHEME: Final = re.compile(r"([a-z][a-z0-9.+-]*)://", re.IGNORECASE)


class Settings:
    """The checked settings of one application. Making it opens nothing.

    `given` has names without a prefix (`"URL"`, `"KEEPALIVE"`). Names that are no setting are ignored, and listed in
    `unknown`. Numbers and truth values may be text, as they come from the environment. `name_of` returns a setting's
    name as the user writes it, for messages. Raise `HubConfigurationError` for a value of the wrong type.
    """

    def __init__(self, given: Mapping[str, Any], name_of: Callable[[str], str] = _IN_ENVIRONMENT) -> None:
        self._name_of = name_of
        self.unknown = sorted(set(given) - set(DEFAULTS))
        """The names in `given` that are no setting."""
        self.values: dict[str, Any] = {
            name: _checked(name_of(name), name, given.get(name, default)) for name, default in DEFAULTS.items()
        }

    @property
    def url(self) -> str:
        """The hub's URL, or "". Raise `HubConfigurationError` if there are two."""
        return url_of(self.values, self._name_of)

    def new_hub(self, json_default: JsonDefault | None = None) -> NotifyHub:
        """Return a new hub for the URL. Its scheme selects the class. Connect to nothing.

        Raise `HubConfigurationError` if the URL is missing or unreadable, or no hub has its scheme, and `ValueError` if
        a setting makes no sense. No message shows the URL.
        """
        name = self._name_of("URL")
        if not (url := self.url):
            raise HubConfigurationError(
                f"{name} is not set: put the PostgreSQL server's URL (postgresql://user@host/database) there or in the"
                " environment's PGFANOUT_URL. For tests and development, memory:// needs no server"
            )
        return _maker(url, name)(self.values, url, json_default)

    def new_endpoint(self, hub: NotifyHub) -> StreamEndpoint:
        """Return what opens the hub's streams, with limits of its own. Raise `ValueError` for impossible settings."""
        values = self.values
        limiter = StreamLimiter(
            values["MAX_STREAMS"], values["MAX_STREAMS_PER_USER"], thread_reserve=values["THREAD_RESERVE"]
        )
        return StreamEndpoint(
            hub,
            limiter,
            keepalive=values["KEEPALIVE"],
            client_timeout=values["CLIENT_TIMEOUT"],
            start_timeout=values["START_TIMEOUT"],
            retry_after=values["RETRY_AFTER"],
            detach=values["DETACH"],
        )

    def history(self) -> History:
        """Return the history's settings, whether `HISTORY` is set or not. Raise `ValueError` for impossible ones."""
        return _history(self.values)

    def changed(self, name: str) -> Any:
        """Return a setting, or None if it is the default."""
        return None if self.values[name] == DEFAULTS[name] else self.values[name]

    def changed_for_hub(self) -> list[str]:
        """Return the names of the settings that concern the hub alone and are not the default."""
        return [self._name_of(name) for name in _HUB_DEFAULTS if self.changed(name) is not None]


def _postgres_hub(values: Mapping[str, Any], url: str, json_default: JsonDefault | None) -> NotifyHub:
    return PostgresHub(
        url,
        buffer_size=values["BUFFER_SIZE"],
        buffer_bytes=values["BUFFER_BYTES"],
        postgres_channel=values["POSTGRES_CHANNEL"],
        history=_history(values) if values["HISTORY"] else None,
        heartbeat=values["HEARTBEAT"],
        heartbeat_timeout=values["HEARTBEAT_TIMEOUT"],
        max_reconnect_delay=values["MAX_RECONNECT_DELAY"],
        publisher_connections=values["PUBLISHER_CONNECTIONS"],
        json_default=json_default,
    )


def _history(values: Mapping[str, Any]) -> History:
    return History(**{field.name: values[f"HISTORY_{field.name.upper()}"] for field in fields(History)})


def _memory_hub(values: Mapping[str, Any], url: str, json_default: JsonDefault | None) -> NotifyHub:
    if url.partition("://")[2]:
        raise HubConfigurationError("memory:// takes nothing after it: each application has a hub of its own")
    return MemoryHub(buffer_size=values["BUFFER_SIZE"], buffer_bytes=values["BUFFER_BYTES"], json_default=json_default)


_Maker: TypeAlias = Callable[[Mapping[str, Any], str, JsonDefault | None], NotifyHub]

_HUBS: Final[dict[str, _Maker]] = {"postgresql": _postgres_hub, "postgres": _postgres_hub, "memory": _memory_hub}
"""What makes a hub, for each scheme."""


def url_of(given: Mapping[str, Any], name_of: Callable[[str], str] = _IN_ENVIRONMENT) -> str:
    """Return the hub's URL: the one given, or else the environment's. Return "" if there is none.

    Raise `HubConfigurationError` if the name and its alias have different URLs, or one is no text.
    """
    in_environment = {_IN_ENVIRONMENT(name): os.environ.get(_IN_ENVIRONMENT(name)) for name in _URL_NAMES}
    return _only({name_of(name): given.get(name) for name in _URL_NAMES}) or _only(in_environment)


def _only(urls: dict[str, Any]) -> str:
    named = {name: url for name, url in urls.items() if url}
    for name, url in named.items():
        if not isinstance(url, str):
            hint = ": write url.render_as_string(hide_password=False)" if hasattr(url, "render_as_string") else ""
            raise HubConfigurationError(f"{name} has to be text, not a {type(url).__name__}{hint}")
    if len(set(named.values())) > 1:
        raise HubConfigurationError(f"{' and '.join(named)} are one setting and have different values: keep the first")
    return next(iter(named.values()), "")


def _maker(url: str, name: str) -> _Maker:
    match = _SCHEME.match(url)
    if match is None:  # keys and values, as libpq takes them. Only PostgreSQL has that form.
        return _postgres_hub
    scheme = match[1].lower()
    # SQLAlchemy adds a driver's name (postgresql+psycopg). The hub decides about that.
    maker = _HUBS.get(scheme.partition("+")[0])
    if maker is None:
        known = ", ".join(f"{each}://" for each in _HUBS)
        raise HubConfigurationError(f"{name} begins with {scheme}://, and no hub has that scheme. There are {known}")
    return maker


def _checked(shown: str, name: str, value: Any) -> Any:
    """Return a setting converted to the type of its default."""
    kind, convert = _DETACH if name == "DETACH" else _KINDS.get(type(DEFAULTS[name]), ("", lambda value: value))
    try:
        return convert(value)
    except (TypeError, ValueError, OverflowError, KeyError):
        raise HubConfigurationError(f"{shown} has to be {kind}, not {value!r}") from None


def _whole(value: Any) -> int:
    number = int(value)
    if number != float(value):
        raise ValueError
    return number


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


_BOOLEANS: Final = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}

_KINDS: Final[dict[type, tuple[str, Callable[[Any], Any]]]] = {
    bool: ("true or false", lambda value: _BOOLEANS[str(value).lower()]),
    int: ("a whole number", _whole),
    float: ("a number", _finite),
}

_DETACH: Final[tuple[str, Callable[[Any], Any]]] = ('"auto" or "never"', check_detach)
