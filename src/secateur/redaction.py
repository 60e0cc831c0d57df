"""Secrets taken out of text that people or files will see: messages of foreign libraries, log lines, values of definitions.

What counts as a secret: the user part of a URL, URL parameters and headers with a telling name, and the values of environment
variables with a telling name, as they are and percent-encoded.
"""

from __future__ import annotations

import logging
import os
import re
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
SHORTEST = 4
"""Values of environment variables below this length are too common as words to be taken out of every text."""

_TELLING = r"(?:[a-z0-9._-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|credential|signature)[a-z0-9._-]*|pwd|sig)"
_TELLING_NAME = re.compile(
    r"(?i)(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|SECRETS?|TOKEN|API_?KEY|ACCESS_KEY|SECRET_KEY|CREDENTIALS?)(?:_|$)|_(?:PASS|PWD)$"
)
_NAMES_A_PLACE = re.compile(r"(?i)_(?:FILE|PATH|DIR|URL|URI|ID)$")
_VARIABLE = re.compile(r"\$\{[A-Za-z_]\w*\}")  # one with a default shows the default
_WORDS = {"true", "false", "none", "null"}
_USER_PART = re.compile(r"(?P<scheme>\b[a-zA-Z][a-zA-Z0-9+.-]*://)(?P<user>[^\s/?#]+)@")
_PARAMETER = re.compile(rf"(?i)(?P<name>[?&;]{_TELLING}=)[^\s&;#'\")\]>]+")
_HEADER = re.compile(r"(?i)(?P<name>\bauthorization\b['\"]?\s*[:=]\s*['\"]?(?:basic|bearer|token)?\s*)[^\s'\",)}]+")


def scrubbed(text: str) -> str:
    """The text with `***` where a secret stood."""
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    text = _USER_PART.sub(rf"\g<scheme>{HIDDEN}@", text)
    text = _PARAMETER.sub(rf"\g<name>{HIDDEN}", text)
    return _HEADER.sub(rf"\g<name>{HIDDEN}", text)


def has_credentials(url: str) -> bool:
    """Whether a URL carries a user part with a password, any user part for http(s), or a parameter with a telling name.

    `${NAME}`, which the environment fills in, is none.
    """
    url = _VARIABLE.sub("", url)
    if _PARAMETER.search(url):
        return True
    user = _USER_PART.search(url)
    if user is None:
        return False
    name, _, password = user["user"].partition(":")
    return bool(password or (name and user["scheme"].lower().startswith("http")))


def _secrets() -> list[str]:
    """What the environment holds that must not be shown, longest first: a secret may be a part of another one."""
    values = set()
    for name, value in os.environ.items():
        if _TELLING_NAME.search(name) and not _NAMES_A_PLACE.search(name) and value.lower() not in _WORDS:
            values.add(value)
        if "://" in value:
            values |= _in_url(value)
    forms = {form for value in values for form in (value, quote(value, safe=""), quote_plus(value), unquote(value))}
    return sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)


def _in_url(url: str) -> set[str]:
    """The password and the telling parameters of a URL that the environment holds: a library may show them apart from it."""
    user = _USER_PART.search(url)
    secrets = {user["user"].partition(":")[2]} if user else set()
    secrets |= {match.group().partition("=")[2] for match in _PARAMETER.finditer(url)}
    return secrets - {""}


class Scrubbed(logging.Formatter):
    """Log lines without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        """One record, its traceback included."""
        return scrubbed(super().format(record))
