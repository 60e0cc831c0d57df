"""What the pages need beside Markdown: links to files of the repository that are no pages become plain text."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A link that leaves docs/ works in the repository only; on the page its text stays, with the path."""
    return re.sub(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)", r"\1 (`\2`)", markdown)
