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
_TELLING_NAME = re.compile(r"(?i)(?:^|_)(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|KEY|CREDENTIALS?|PWD)(?:_|$)|_PASS$")
_NOT_SECRET = {"PWD", "OLDPWD"}
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
    """Whether a URL carries a user part with a password, any user part for http(s), or a parameter with a telling name."""
    user = _USER_PART.search(url)
    carries = user is not None and (":" in user["user"] or user["scheme"].lower().startswith("http"))
    return carries or _PARAMETER.search(url) is not None


def _secrets() -> list[str]:
    """What the environment holds that must not be shown, longest first: a secret may be a part of another one."""
    values = set()
    for name, value in os.environ.items():
        if name not in _NOT_SECRET and _TELLING_NAME.search(name):
            values.add(value)
        elif "://" in value:
            values |= _in_url(value)
    forms = {form for value in values for form in (value, quote(value, safe=""), quote_plus(value), unquote(value))}
    return sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)


def _in_url(url: str) -> set[str]:
    """The password and the telling parameters of a URL that the environment holds: a library may show them apart from it."""
    user = _USER_PART.search(url)
    found = {user["user"].partition(":")[2]} if user else set()
    found |= {match.group().partition("=")[2] for match in _PARAMETER.finditer(url)}
    return found - {""}


class Scrubber(logging.Filter):
    """A logging filter that takes secrets out of messages and of the tracebacks that go with them."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record in place; nothing is dropped."""
        record.msg, record.args = scrubbed(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = scrubbed(record.exc_text)
        return True
