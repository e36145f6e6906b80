"""What an HTML page says and what it would load."""

from __future__ import annotations

import re
from html.parser import HTMLParser

LOADING = {"src", "srcset", "data", "poster", "background", "action", "formaction", "xlink:href"}


class Page(HTMLParser):
    """Tags, what they refer to, identifiers and plain text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.links: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self._hidden = 0
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._hidden += tag in ("style", "script")
        for name, value in attrs:
            if name in LOADING | {"href"}:
                self.links.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def assert_self_contained(source: str) -> Page:
    page = Page(source)
    for tag, name, value in page.links:
        if (tag, name) == ("a", "href"):
            assert value.startswith(("#", "https://doi.org/", "sub-", "group_")), value
        else:
            assert value.startswith("data:"), (tag, name, value[:50])
    assert "link" not in page.tags
    found = re.findall(
        r".{60}(?:url\((?!#|%23)|@import|fetch\(|XMLHttpRequest|import\().{60}", source
    )
    assert not found, found
    assert page.tags.count("script") == 1
    return page
