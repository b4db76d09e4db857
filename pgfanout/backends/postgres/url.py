"""Connection strings as SQLAlchemy's users have them, and what is wrong with a string that libpq refuses.

No message shows a value, and no name that may be a part of an unquoted password.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from psycopg import pq

from ...errors import HubConfigurationError

__all__ = ["advice", "for_libpq"]

_SQLALCHEMY = re.compile(r"(postgres(?:ql)?)\+(\w*)://(?:([^:/@]*)(?::([^@]*))?@)?", re.IGNORECASE)
_RENDER = "url.render_as_string(hide_password=False)"


def for_libpq(conninfo: Any) -> Any:
    """Return a URL of SQLAlchemy (`postgresql+psycopg://`) as libpq takes it, and anything else as it is.

    Raise `HubConfigurationError`.
    """
    if hasattr(conninfo, "render_as_string"):
        raise HubConfigurationError(f"a URL object of SQLAlchemy is not a connection string: pass {_RENDER}")
    if not isinstance(conninfo, str):
        return conninfo
    _check_hosts(conninfo)
    match = _SQLALCHEMY.match(conninfo)
    if match is None:
        return conninfo
    scheme, driver, user, password = match.groups()
    if not driver.startswith("psycopg"):
        raise HubConfigurationError(
            f"the hub connects by psycopg, whichever driver the application has: begin the URL with {scheme}:// instead"
            f" of {scheme}+{driver}://"
        )
    if password == "***":
        raise HubConfigurationError(f"str(url) of SQLAlchemy puts *** in the password's place: pass {_RENDER}")
    # SQLAlchemy takes everything up to the '@' for the password. libpq needs '/' and ':' to be escaped there.
    secret = "" if password is None else f":{_escaped(password)}"
    login = "" if user is None else f"{_escaped(user)}{secret}@"
    return f"postgresql://{login}{conninfo[match.end() :]}"


def _escaped(text: str) -> str:
    return quote(text, safe="%")  # what is escaped already stays so


def _check_hosts(conninfo: str) -> None:
    # libpq takes the last one and says nothing.
    if "://" in conninfo and len(re.findall(r"[?&]host=", conninfo)) > 1:
        raise HubConfigurationError(
            "the connection URL has several host parameters, as SQLAlchemy takes them: write"
            " postgresql://user@one:5432,two:5432/database"
        )


def advice(conninfo: Any) -> str:
    """Return what to change in a string that libpq can't parse."""
    unknown = ", ".join(repr(name) for name in _names(conninfo) if name not in _known())
    if unknown:
        return (
            f"libpq does not know the parameter {unknown} of the connection string: remove it. Options of SQLAlchemy's"
            " create_engine or of Django don't belong there"
        )
    return "the connection string has to look like postgresql://user@host/database or host=... dbname=..."


def _known() -> set[str]:
    return {option.keyword.decode() for option in pq.Conninfo.get_defaults()} | {"ssl"}


def _names(conninfo: Any) -> list[str]:
    """Return the names of the parameters, except those that may be a part of a password."""
    if not isinstance(conninfo, str):
        return []
    if "://" in conninfo:
        query = conninfo.rpartition("?")[2] if "?" in conninfo else ""
        names = [] if "@" in query else [part.partition("=")[0] for part in query.split("&")]
        return [name for name in names if re.fullmatch(r"[A-Za-z]\w{0,40}", name)]
    unquoted = re.sub(r"'(?:\\.|[^'\\])*'", "''", conninfo)
    begun = re.split(r"\bpassword\s*=\s*(?!')", unquoted)[0]  # what follows an unquoted password may belong to it
    return re.findall(r"(?:^|\s)([A-Za-z]\w{0,40})\s*=", begun)
