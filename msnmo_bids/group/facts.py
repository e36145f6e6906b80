"""What the raw data set says of each scan: diagnosis, site, scanner, age."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msnmo_bids.bids.metadata import Sidecars
from msnmo_bids.bids.tables import Tables
from msnmo_bids.errors import UsageError
from msnmo_bids.group.settings import Columns


@dataclass(frozen=True)
class Facts:
    """What is known of a scan; None: unknown.

    Parameters
    ----------
    diagnosis, site, scanner : str or None
        As the tables or the sidecar have them.
    age : float or None
        Years.
    """

    diagnosis: str | None = None
    site: str | None = None
    scanner: str | None = None
    age: float | None = None


def read_facts(
    bids_dir: Path | None, scans: Iterable[str], columns: Columns, classes: Iterable[str]
) -> dict[str, Facts]:
    """Read what the raw data set says of the scans.

    Parameters
    ----------
    bids_dir : Path or None
        Root of the raw data set.
    scans : iterable of str
        Images, POSIX paths from the root.
    columns : Columns
        Where things stand.
    classes : iterable of str
        Diagnosis classes: a diagnosis that differs from one in case only is that class.

    Returns
    -------
    dict of str to Facts
        By scan.

    Raises
    ------
    UsageError
        If the user named a column that no table has.
    """
    names = list(scans)
    if bids_dir is None:
        return {name: Facts() for name in names}
    tables, sidecars = Tables(bids_dir), Sidecars(bids_dir)
    _check(tables, names, columns, bids_dir)
    by_name = {name.casefold(): name for name in classes}
    found = {}
    for name in names:
        diagnosis = tables.value(name, columns.diagnosis)
        scanner = tables.value(name, columns.scanner) if columns.scanner else ""
        found[name] = Facts(
            by_name.get(diagnosis.casefold(), diagnosis) or None,
            tables.value(name, columns.site) or None,
            (scanner if columns.scanner else _scanner(sidecars.of(name))) or None,
            _years(tables.value(name, columns.age)),
        )
    return found


def _check(tables: Tables, scans: list[str], columns: Columns, bids_dir: Path) -> None:
    """Refuse columns that the user named and that are nowhere."""
    standard = Columns()
    asked = {
        kind: name
        for kind, name in vars(columns).items()
        if name and name != getattr(standard, kind)
    }
    if not asked:
        return
    there = set().union(*(tables.columns(name) for name in scans)) if scans else set()
    for kind, name in asked.items():
        if name not in there:
            raise UsageError(
                f"--{kind}-column: no table has a column '{name}'",
                file=bids_dir / "participants.tsv",
                remedy=f"Choose of {', '.join(sorted(there)) or 'none: there are no columns'}",
            )


def _scanner(metadata: dict) -> str:
    """Name a scanner by its sidecar.

    Examples
    --------
    >>> _scanner({"Manufacturer": "Siemens", "MagneticFieldStrength": 3})
    'Siemens 3 T'
    """
    words = [
        " ".join(str(metadata[key]).split())
        for key in ("Manufacturer", "ManufacturersModelName")
        if metadata.get(key)
    ]
    field = metadata.get("MagneticFieldStrength")
    if isinstance(field, int | float):
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
