"""MkDocs hook: pages link to files of the checkout beside docs/; on the site these become code, not dead links."""

import re
from pathlib import Path
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write ``[card](../weights/README.md)`` as ``card (`weights/README.md`)``.

    Raises:
        FileNotFoundError: a page links to a file that is not in the checkout.
    """
    root = Path(__file__).resolve().parents[2]

    def plain(match: re.Match[str]) -> str:
        text, target = match.group(1), match.group(2)
        if not (root / target).exists():
            raise FileNotFoundError(f"a page links to {target}, which is not in the checkout")
        return f"`{target}`" if text.strip("`") == target else f"{text} (`{target}`)"

    return _OUTSIDE.sub(plain, markdown)
