"""The methods section of a report: what the records say of themselves, with its references."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

CITATION = re.compile(r"\[@(\w+)\]")
_ENTRY = re.compile(r"@\w+\{(\w+),(.*?)\n\}", re.DOTALL)
_FIELD = re.compile(r"(\w+) = \{(.*)\},?$", re.MULTILINE)


@dataclass(frozen=True)
class Reference:
    """An entry of ``CITATION.bib``: key, text (authors to year), DOI without resolver."""

    key: str
    text: str
    doi: str


@dataclass(frozen=True)
class MethodsText:
    """Paragraphs whose citations are numbers in brackets, and the references in that order."""

    paragraphs: tuple[str, ...]
    references: tuple[Reference, ...]


def methods(records: Mapping[str, Mapping[str, Any]]) -> MethodsText:
    """Gather the methods texts of the scans and comparisons of a report.

    `records`, by name of a scan or comparison, have the text under ``Methods``. What was processed
    alike shares a paragraph; there is none without a text.
    """
    names: dict[str, list[str]] = {}
    for name, record in records.items():
        if isinstance(text := record.get("Methods"), str) and text:
            names.setdefault(text, []).append(name)
    if len(names) < 2:
        return _numbered(names)
    return _numbered(f"{', '.join(titles)}: {text}" for text, titles in names.items())


def calibration(record: Mapping[str, Any]) -> str:
    """Say in a sentence how class scores were calibrated, by that part of the diagnosis file.

    Its keys are ``Temperature``, ``Matrix``, ``Offset``, ``Method`` and ``Data``.
    """
    temperature, matrix = record.get("Temperature"), record.get("Matrix") or []
    uncalibrated = temperature in (None, 1, 1.0) and not matrix
    if uncalibrated or str(record.get("Method")).lower() == "none":
        return "The class scores were not calibrated."
    value = f"temperature {_number(temperature)}"
    if matrix:
        rows = "; ".join(", ".join(map(_number, row)) for row in matrix)
        offset = ", ".join(map(_number, record.get("Offset") or []))
        value = f"matrix {rows}; offset {offset}"
    return (
        f"The class scores were calibrated by {record.get('Method')} ({value}) on "
        f"{record.get('Data')}."
    )


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "an unstated value"


def _numbered(texts: Iterable[str]) -> MethodsText:
    """Replace citation keys by numbers, in their order; a key that is not known stays a key."""
    texts, known = list(texts), bibliography()
    cited = dict.fromkeys(key for text in texts for key in CITATION.findall(text))
    keys = [key for key in cited if key in known]
    names = {key: number for number, key in enumerate(keys, start=1)}
    return MethodsText(
        tuple(CITATION.sub(lambda key: f"[{names.get(key[1], key[1])}]", text) for text in texts),
        tuple(known[key] for key in keys),
    )


@lru_cache(maxsize=1)
def bibliography() -> dict[str, Reference]:
    """Read the references that ship with the program (``bids/data/CITATION.bib``), by key."""
    source = files("msnmo_bids.bids").joinpath("data", "CITATION.bib").read_text(encoding="utf-8")
    references = {}
    for key, body in _ENTRY.findall(source):
        entry = {name: re.sub(r"[{}]", "", value) for name, value in _FIELD.findall(body)}
        references[key] = Reference(key, _formatted(entry), entry.get("doi", ""))
    return references


def _formatted(entry: Mapping[str, str]) -> str:
    authors = entry["author"].split(" and ")
    names = [_initials(name) for name in authors if name != "others"]
    if len(authors) > 6 or "others" in authors:
        names = [*names[:3], "et al."]
    place = f"{entry['journal']} {entry.get('volume', '')}"
    number = f"({entry['number']})" if "number" in entry else ""
    pages = entry.get("pages", "").replace("--", "–")
    return f"{', '.join(names)} {entry['title']}. {place}{number}:{pages}, {entry['year']}."


def _initials(name: str) -> str:
    """Shorten given names.

    Examples
    --------
    >>> _initials("Smith, Stephen M.")
    'Smith SM'
    """
    family, _, given = name.partition(", ")
    return f"{family} {''.join(word[0] for word in given.split())}".strip()
