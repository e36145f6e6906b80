"""The cohort: its scans, and what the raw data set says of each: diagnosis, site, scanner, age."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from msnmo_bids.bids.raw_metadata import Sidecars, Tables, spelling
from msnmo_bids.bids.records import ScanRecord, Status
from msnmo_bids.errors import UsageError
from msnmo_bids.group.review_list import ReviewItem
from msnmo_bids.text import Note, merged

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Columns:
    """Columns of the raw data set's ``scans.tsv``, ``sessions.tsv`` or ``participants.tsv``.

    Without a column of the scanner it is manufacturer, model and field strength of the sidecar.
    """

    diagnosis: str = "diagnosis"
    site: str = "site"
    age: str = "age"
    scanner: str = ""


@dataclass(frozen=True)
class Covariates:
    """What the tables and the sidecar say of a scan, the age in years; None: unknown."""

    diagnosis: str | None = None
    site: str | None = None
    scanner: str | None = None
    age: float | None = None


@dataclass(frozen=True)
class Cohort:
    """All scans, in order, and what is known of them.

    The positive one of the network's classes is empty without results. ``covariates``, what the raw
    data set says, and ``quality``, colour and reasons (empty without quality files), are by scan.
    ``rows`` and ``columns`` are those of the table of all scans. ``notes`` say what a reader must
    know of the choice of scans, and what in the raw data set's tables and sidecars could not be
    used, or was guessed.
    """

    records: list[ScanRecord]
    classes: list[str]
    positive: str
    covariates: dict[str, Covariates]
    review_list: list[ReviewItem]
    quality: dict[str, tuple[str, list[str]]]
    rows: list[dict[str, Any]]
    columns: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def done(self) -> list[ScanRecord]:
        """Scans with results."""
        return [record for record in self.records if record.status == Status.COMPLETE]

    @property
    def with_diagnoses(self) -> bool:
        """Whether the raw data set says any scan's diagnosis."""
        return any(own.diagnosis for own in self.covariates.values())


def read_covariates(
    bids_dir: Path | None, scans: Iterable[str], columns: Columns, classes: Iterable[str]
) -> tuple[dict[str, Covariates], list[str]]:
    """Read what the raw data set says of the scans (images, POSIX paths from its root), by scan.

    A diagnosis that differs from one of the classes in case only is that class. Returned as well:
    what in the tables and sidecars could not be used, or was guessed, one line per kind.

    Raises
    ------
    UsageError
        If the user named a column that no table has.
    """
    names = list(scans)
    if bids_dir is None:
        return {name: Covariates() for name in names}, []
    tables, sidecars = Tables(bids_dir, names), Sidecars(bids_dir)
    notes = _check(tables, names, columns, bids_dir)
    by_name = {name.casefold(): name for name in classes}
    found, ages = {}, []
    for name in names:
        diagnosis, site, age = (
            tables.value(name, column) for column in (columns.diagnosis, columns.site, columns.age)
        )
        if columns.scanner:
            scanner = tables.value(name, columns.scanner)
        else:
            scanner = _scanner(sidecars.of(name))
        known = by_name.get(diagnosis.casefold(), diagnosis)
        found[name] = Covariates(known or None, site or None, scanner or None, _years(age))
        if age and found[name].age is None:
            ages.append(Note("ages that are not a number of years, not used", f"{name} '{age}'"))
    notes += [
        Note("sites that are spelt differently count apart (are they one?)", " / ".join(alike))
        for alike in _spelt_alike(own.site for own in found.values() if own.site)
    ]
    of_sidecars = [note for name in names for note in sidecars.notes(name)]
    notes += tables.differing(names, columns.diagnosis)
    notes += [*tables.notes(names, {*vars(columns).values()}), *ages]
    for line in merged(notes):  # those of sidecars have been said when the scans were found
        logger.warning("%s", line)
    return found, merged([*notes, *of_sidecars])


def _spelt_alike(names: Iterable[str]) -> list[list[str]]:
    """Return the names that differ in case, zeros, blanks, hyphens and underscores alone.

    >>> _spelt_alike(["Lyon", "Site A", "lyon", "site-a", "Bern", "Site 1", "Site 01", "Site 1-1"])
    [['Lyon', 'lyon'], ['Site A', 'site-a'], ['Site 01', 'Site 1']]
    >>> _spelt_alike(["1", "01", "1.0", "1.05", "1.5", "15"])
    [['01', '1', '1.0']]
    """
    groups: dict[str, set[str]] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", name)
        plain = re.sub(r"(?<!\d)[\s_–-]+|[\s_–-]+(?!\d)|(?<=\d)\.0$", "", plain)
        groups.setdefault(spelling(plain), set()).add(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def _check(tables: Tables, scans: list[str], columns: Columns, bids_dir: Path) -> list[Note]:
    """Name the usual columns that no table has; refuse those that the user named."""
    standard = vars(Columns())
    there = set().union(*(tables.columns(name) for name in scans)) if scans else set()
    lacking = []
    for kind, name in vars(columns).items():
        if not name or name in there:
            continue
        if name != standard[kind]:
            problem = tables.participants.problem
            raise UsageError(
                f"--{kind}-column: no table has a column '{name}'",
                file=bids_dir / "participants.tsv",
                remedy=f"Choose of {', '.join(sorted(there)) or problem or 'none: it is missing'}",
            )
        lacking.append(name)
    if not tables.participants.exists:
        return [Note("there is no participants.tsv: what it would say is not known")]
    if tables.participants.problem or not lacking:
        return []
    options = ", ".join(f"--{name}-column" for name in lacking)
    others = ", ".join(sorted(there)) or "no others"
    return [
        Note(f"no table has these columns (there are: {others}; or use {options})", name)
        for name in lacking
    ]


def _scanner(metadata: dict) -> str:
    """Name a scanner by its sidecar.

    Examples
    --------
    >>> _scanner({"Manufacturer": "Siemens", "MagneticFieldStrength": 3})
    'Siemens 3 T'
    """
    words = [
        " ".join(metadata[key].split())
        for key in ("Manufacturer", "ManufacturersModelName")
        if metadata.get(key)
    ]
    field = metadata.get("MagneticFieldStrength")
    if field is not None:
        words.append(f"{field:.2g} T")
    return " ".join(words)


def _years(text: str) -> float | None:
    """Read an age; ``89+``, as data sets hide great ages, is 89.

    Examples
    --------
    >>> _years("89+"), _years("n/a")
    (89.0, None)
    """
    try:
        value = float(text.removesuffix("+"))
    except ValueError:
        return None
    return value if 0 <= value < 150 else None
