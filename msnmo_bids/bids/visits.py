"""Which scans of a participant are compared with which: the order of visits, and their dates."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from itertools import pairwise

from msnmo_bids.bids.scans import Scan
from msnmo_bids.bids.tables import Tables, cell
from msnmo_bids.text import natural_key

#: How the order of visits was found; the first two are tables with the column ``acq_time``.
BY_SCANS, BY_SESSIONS, BY_LABELS = "scans.tsv", "sessions.tsv", "session labels"


@dataclass(frozen=True)
class Comparison:
    """Two scans of consecutive visits.

    Parameters
    ----------
    earlier, later : Scan
        Of two sessions of one participant.
    order_by : {"scans.tsv", "sessions.tsv", "session labels"}
        What says which is the earlier one.
    interval_days : float or None
        Days between them; None without dates.
    """

    earlier: Scan
    later: Scan
    order_by: str
    interval_days: float | None

    @property
    def subject(self) -> str:
        """Label without ``sub-``."""
        return self.later.subject

    @property
    def space(self) -> str:
        """Name of the half-way space, for example ``"ses1ses2"``."""
        labels = (f"ses{scan.session}" for scan in (self.earlier, self.later))
        return re.sub(r"[^0-9A-Za-z]", "", "".join(labels))

    @property
    def name(self) -> str:
        """Name among all comparisons, for example ``"sub-01_ses-2_space-ses1ses2"``."""
        return f"{self.later.prefix}_space-{self.space}"


def comparisons(scans: Iterable[Scan]) -> list[Comparison]:
    """Pair the scans of consecutive visits.

    Scans of one participant with the same name but for the session are a series; each is compared
    with the one before it in its series. Where no two visits have scans of the same name, the
    first scan of each visit makes the series.

    Parameters
    ----------
    scans : iterable of Scan
        Of any participants; those without a session are passed over.

    Returns
    -------
    list of Comparison
        By participant and series, in the order of the visits.
    """
    by_subject: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        if scan.session is not None:
            by_subject[scan.subject].append(scan)
    found: list[Comparison] = []
    tables = cache(Tables)
    for subject in sorted(by_subject, key=natural_key):
        for series in _series(by_subject[subject]):
            found += _pairs(series, tables(series[0].bids_dir))
    return found


def _series(scans: Sequence[Scan]) -> list[list[Scan]]:
    ordered = sorted(scans, key=lambda scan: natural_key(scan.prefix))
    by_name: dict[str, list[Scan]] = defaultdict(list)
    for scan in ordered:
        by_name[scan.prefix.replace(f"_ses-{scan.session}", "", 1)].append(scan)
    series = [group for group in by_name.values() if len(group) > 1]
    if series:
        return series
    first = {scan.session: scan for scan in reversed(ordered)}
    return [list(first.values())] if len(first) > 1 else []


def _pairs(series: Sequence[Scan], tables: Tables) -> list[Comparison]:
    """Put a series in order and pair each scan with the next."""
    by_label = sorted(series, key=lambda scan: natural_key(scan.session or ""))
    rows = [tables.rows(scan.relative) for scan in by_label]
    for place, source in enumerate((BY_SCANS, BY_SESSIONS)):
        times = [_time(cell(of_scan[place], "acq_time")) for of_scan in rows]
        known = [time for time in times if time is not None]
        if len(known) == len(times):
            dated = sorted(zip(known, range(len(known)), by_label, strict=True))
            return [
                Comparison(one, two, source, round((end - begin).total_seconds() / 86400, 3))
                for (begin, _, one), (end, _, two) in pairwise(dated)
            ]
    return [Comparison(one, two, BY_LABELS, None) for one, two in pairwise(by_label)]


def _time(text: str) -> datetime | None:
    """Read a date or a time (ISO 8601), as it stands on the clock; None for what is none.

    >>> _time("2019-06-15T13:45:30.5Z")
    datetime.datetime(2019, 6, 15, 13, 45, 30, 500000)
    >>> _time("n/a") is None
    True
    """
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None
