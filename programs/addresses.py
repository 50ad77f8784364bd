"""Addresses as they may be shown: a URL may hold a password or a key, and errors repeat the URL."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote, urlsplit

DATABASES = ("sqlite", "postgresql", "postgres", "mysql", "mssql")
"""Schemes of stores that MLflow opens without a server."""

_CREDENTIALS = re.compile(r"(?<=://)[^/\s?#]*@")
_QUERY = re.compile(r"(://[^\s?#'\")]*)[?#][^\s'\")]*")
HIDDEN = "***"


def is_database(uri: str) -> bool:
    """Whether MLflow opens the store itself, so that artifacts need a place of their own."""
    return _scheme(uri) in DATABASES


def public_uri(uri: str) -> str:
    """The URI without user, password, query and fragment."""
    if _scheme(uri) == "sqlite":
        # A file's name. Three slashes mean a relative path and four an absolute one, which `urlunsplit` would not keep.
        return uri
    return without_credentials(uri)


def without_credentials(text: str) -> str:
    """A text whose URLs have lost user, password, query and fragment."""
    return _QUERY.sub(r"\1", _CREDENTIALS.sub("", text))


def secrets_of(uri: str) -> tuple[str, ...]:
    """What must not be shown of a URI: its user and password and the values of its query, as written and as meant."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return ()
    if parts.scheme == "sqlite":
        return ()
    found = [parts.password, parts.username if parts.password is None else None]
    found += [part.partition("=")[2] for part in parts.query.split("&")]
    found += [value for _, value in parse_qsl(parts.query)]
    meant = [unquote(secret) for secret in found if secret]
    # The longest first: one may be the beginning of another.
    return tuple(sorted({*filter(None, found), *meant}, key=len, reverse=True))


def cleaned(text: str, uri: str) -> str:
    """A text, such as an error's, without the secrets of `uri`."""
    text = without_credentials(text)
    for secret in secrets_of(uri):
        text = text.replace(secret, HIDDEN)
    return text


def _scheme(uri: str) -> str:
    return uri.partition(":")[0].partition("+")[0].lower()
