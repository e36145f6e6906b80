"""Which scans of a participant are compared with which: the order of visits, and their dates."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any

from msnmo_bids.bids.raw_metadata import SCANS, SESSIONS, Tables
from msnmo_bids.bids.scans import Scan
from msnmo_bids.text import Note, natural_key

#: How the order of visits was found; the first two are tables with the column ``acq_time``.
BY_SCANS, BY_SESSIONS, BY_LABELS = SCANS, SESSIONS, "session labels"
DATE_COLUMN = "acq_time"
#: Begins of labels that are words: these come before all others, and after them.
_FIRST = ("pre", "base", "bl", "screen", "before", "initial")
_LAST = ("post", "follow", "fu", "after", "final")
NO_DATE = "dates that are not ISO 8601 (such as 2020-05-31) or before 1800, not used"
TO_COME = "dates to come, used as they are (shifted ones lie before 1925, by BIDS)"
REVERSED = "visits whose dates and numbers are in opposite orders; the dates count (is one wrong?)"
CONTRADICTION = "visits whose day differs between the tables; that of scans.tsv counts"
NO_COLUMN = "no column acq_time, so that it gives no dates"
IN_SIDECARS = (
    "dates of visits in sidecars, not used: write them into sessions.tsv or scans.tsv (acq_time)"
)
NOT_DATED = "visits without a date that can be read, so that labels decide which came first"
NO_TIME = "session labels that do not tell which visit came first (give dates in sessions.tsv)"
#: Fields that converters write; BIDS has the date of an image in ``scans.tsv``.
_SIDECAR_DATES = {"AcquisitionDateTime", "AcquisitionDate", "SeriesDate", "StudyDate"}
_FIRST_YEAR = 1800  # dates that were shifted to hide them lie before 1925
SAME_DATE = "visits of the same date, so that labels decide which came first"
TOO_LONG = "visits more than 80 years apart by their dates, of which one must be wrong: no rates"
_LONGEST_DAYS = 80 * 365.25
NO_SESSION = "scans that are compared with none, because they belong to no session"
NO_COUNTERPART = "scans that are compared with none; another scan of the same visit is"
NO_RESULTS = "visits that are passed over in the comparison, because they have no results"
TOO_FEW = "visits that are not compared, because fewer than two have results"
OTHER_NAMES = (
    "no scans of the same name at both visits, so the nearest are compared; a difference of the "
    "sequences can look like a change"
)


@dataclass(frozen=True)
class Comparison:
    """Two scans of consecutive visits."""

    #: Of two sessions of one participant.
    earlier: Scan
    later: Scan
    #: {"scans.tsv", "sessions.tsv", "session labels"}: what says which is the earlier one.
    order_by: str
    interval_days: float | None  #: Days between them; None without dates.
    #: What a reader must know of their order, and of the choice of these two scans.
    notes: tuple[Note, ...] = ()

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
    """Pair the scans of consecutive visits, by participant and series, in the order of the visits.

    Scans of one participant with the same name but for the session are a series; each is compared
    with the one before it in its series. A visit that is in no series is compared with the visit
    before it (the first one with that after it), by the two scans whose names differ least. Scans
    without a session are passed over.
    """
    by_subject: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        if scan.session is not None:
            by_subject[scan.subject].append(scan)
    found: list[Comparison] = []
    tables = cache(Tables)
    for subject in sorted(by_subject, key=natural_key):
        own = sorted(by_subject[subject], key=lambda scan: natural_key(scan.prefix))
        found += _of_participant(own, tables(own[0].bids_dir))
    return found


def left_out(scans: Iterable[Scan], found: Iterable[Comparison]) -> list[Note]:
    """Name the visits and scans, of participants with several visits, that are in no comparison.

    `scans` are all of the participants in question, with and without results; `found` is what
    `comparisons` says of those with results.
    """
    used = {scan for one in found for scan in (one.earlier, one.later)}
    people = {scan.subject for scan in used}
    visits = {(scan.subject, scan.session) for scan in used}
    by_subject: dict[str, list[Scan]] = defaultdict(list)
    for scan in scans:
        by_subject[scan.subject].append(scan)
    notes = []
    for subject, own in by_subject.items():
        if len({scan.session for scan in own}) == 1:
            continue
        for scan in own:
            if scan in used:
                continue
            if scan.session is None:
                why = NO_SESSION
            elif (subject, scan.session) in visits:
                why = NO_COUNTERPART
            else:
                why = NO_RESULTS if subject in people else TOO_FEW
            notes.append(Note(why, scan.prefix))
    return notes


def _of_participant(scans: Sequence[Scan], tables: Tables) -> list[Comparison]:
    """Pair the scans of one participant, sorted by name."""
    by_name: dict[frozenset[str], list[Scan]] = defaultdict(list)
    by_visit: dict[str | None, list[Scan]] = defaultdict(list)
    for scan in scans:
        by_name[_entities(scan)].append(scan)
        by_visit[scan.session].append(scan)
    series = [own for own in by_name.values() if len(own) > 1]
    found = [pair for own in series for pair in _pairs(own, tables)]
    covered = {scan.session for own in series for scan in own}
    chain = _pairs([own[0] for own in by_visit.values()], tables)
    for number, pair in enumerate(chain):
        before, after = pair.earlier.session, pair.later.session
        if after in covered and not (number == 0 and before not in covered):
            continue
        one, two = min(
            ((a, b) for a in by_visit[before] for b in by_visit[after]),
            key=lambda two: len(_entities(two[0]) ^ _entities(two[1])),
        )
        note = Note(OTHER_NAMES, f"{one.prefix} with {two.prefix}")
        found.append(replace(pair, earlier=one, later=two, notes=(*pair.notes, note)))
    return found


def _pairs(series: Sequence[Scan], tables: Tables) -> list[Comparison]:
    """Put a series in order and pair each scan with the next."""
    by_label = sorted(series, key=lambda scan: _label_key(scan.session or ""))
    notes: list[Note] = []
    undated: list[Note] = []
    dated: set[Scan] = set()
    of_one_day: tuple[str, list[datetime]] | None = None
    for source in (BY_SCANS, BY_SESSIONS):
        times, found = _times(by_label, tables, source)
        notes += found
        known = [time for time in times if time is not None]
        dated |= {scan for scan, time in zip(by_label, times, strict=True) if time is not None}
        if len(known) == len(times):
            if len({time.date() for time in known}) > 1:
                if source == BY_SCANS:
                    notes += _contradictions(by_label, known, tables)
                return _by_date(by_label, known, source, notes)
            # Perhaps the day was replaced: another table may know it.
            of_one_day = of_one_day or (source, known)
            continue
        if known or found:
            undated += [
                Note(NOT_DATED, f"{_name(scan)} ({source})")
                for scan, time in zip(by_label, times, strict=True)
                if time is None
            ]
    if of_one_day is not None:
        source, known = of_one_day
        return _by_date(by_label, known, source, notes)
    notes += [
        Note(IN_SIDECARS, f"{scan.prefix} ({', '.join(like)})")
        for scan in by_label
        if scan not in dated and (like := _dates_in(scan.metadata))
    ]
    notes += [*undated, *_order_of_labels(by_label)]
    return [Comparison(*two, BY_LABELS, None, tuple(notes)) for two in pairwise(by_label)]


def _by_date(
    series: Sequence[Scan], times: Sequence[datetime], source: str, notes: Sequence[Note]
) -> list[Comparison]:
    """Pair each scan of a series, sorted by label, with the next by their dates."""
    dated = sorted(zip(times, range(len(times)), series, strict=True))
    days = [time.date() for time in times]
    if days != sorted(days) and not _order_of_labels(series):
        order = ", ".join(f"ses-{scan.session} {time:%Y-%m-%d}" for time, _, scan in dated)
        notes = [*notes, Note(REVERSED, f"sub-{series[0].subject} ({order})")]
    return [
        _dated(one, two, (begin, end), source, notes)
        for (begin, _, one), (end, _, two) in pairwise(dated)
    ]


def _contradictions(
    series: Sequence[Scan], times: Sequence[datetime], tables: Tables
) -> list[Note]:
    """Name the scans whose day in ``sessions.tsv`` is not that of ``scans.tsv`` (`times`)."""
    others, _ = _times(series, tables, BY_SESSIONS)
    return [
        Note(CONTRADICTION, f"{_name(scan)} ({one:%Y-%m-%d}, {other:%Y-%m-%d} in {BY_SESSIONS})")
        for scan, one, other in zip(series, times, others, strict=True)
        if other is not None and other.date() != one.date()
    ]


def _dated(
    one: Scan, two: Scan, times: tuple[datetime, datetime], source: str, notes: Sequence[Note]
) -> Comparison:
    """Pair two scans by their dates; where these are equal, their labels decide."""
    begin, end = times
    days = round((end - begin).total_seconds() / 86400, 3)
    if days > _LONGEST_DAYS:
        far = Note(TOO_LONG, f"{_name(one)} and {_name(two)} ({begin:%Y-%m-%d}, {end:%Y-%m-%d})")
        return Comparison(one, two, source, None, (*notes, far))
    if end > begin:
        return Comparison(one, two, source, days, tuple(notes))
    same = Note(SAME_DATE, f"{_name(one)} and {_name(two)} ({begin:%Y-%m-%d})")
    return Comparison(one, two, BY_LABELS, days, (*notes, same, *_order_of_labels([one, two])))


def _times(
    series: Sequence[Scan], tables: Tables, source: str
) -> tuple[list[datetime | None], list[Note]]:
    """Return the time of each scan that a kind of table has, and what is wrong with the tables."""
    times: list[datetime | None] = []
    notes: list[Note] = []
    tomorrow = datetime.now() + timedelta(days=1)  # a clock may be of another zone
    for scan in series:
        own = [(r, name) for r, name in tables.sources(scan.relative) if r.kind == source]
        times.append(None)
        for rows, name in own:
            column = next((c for c in rows.columns if c.casefold() == DATE_COLUMN), None)
            text = rows.value(name, column) if column else ""
            times[-1] = _time(text)
            if text and (times[-1] is None or times[-1] > tomorrow):
                file = rows.path.relative_to(tables.root).as_posix()
                what = NO_DATE if times[-1] is None else TO_COME
                notes.append(Note(what, f"{file} '{text}'"))
            if column or rows.problem:
                notes += rows.notes()
            elif source == BY_SESSIONS and (like := _like_dates(rows.columns)):
                notes.append(rows.note(NO_COLUMN, f"(there is: {', '.join(like)})"))
    return times, list(dict.fromkeys(notes))


def _order_of_labels(series: Sequence[Scan]) -> list[Note]:
    """Say that labels do not tell time, unless they differ in numbers only.

    Of numbers that look like dates only those tell time that begin with the year.
    """
    labels = [scan.session or "" for scan in series]
    kinds = {re.sub(r"\d+", "#", label).casefold() for label in labels}
    if len(kinds) == 1 and "#" in kinds.pop():
        numbers = [re.sub(r"\D", "", label) for label in labels]
        like_dates = {len(number) for number in numbers} <= {6, 8}
        if not like_dates or all(map(_begins_with_year, numbers)):
            return []
    return [Note(NO_TIME, f"sub-{series[0].subject} ({', '.join(f'ses-{s}' for s in labels)})")]


def _begins_with_year(digits: str) -> bool:
    """Say whether digits are a date of these times, as 20200531 or 202005 is.

    >>> [_begins_with_year(digits) for digits in ("20200531", "31052020", "202005", "310520")]
    [True, False, True, False]
    """
    with suppress(ValueError):
        kind = "%Y%m%d" if len(digits) == 8 else "%Y%m"
        return 1900 <= datetime.strptime(digits, kind).year <= 2100
    return False


def _like_dates(columns: Iterable[str]) -> list[str]:
    """Return the columns that seem to hold dates."""
    return sorted(name for name in columns if re.search("date|time", name, re.IGNORECASE))


def _dates_in(metadata: Mapping[str, Any]) -> list[str]:
    """Return the fields of a sidecar that seem to hold a date.

    >>> _dates_in({"SeriesDate": "2020-01-01", "StudyDate": "n/a", "AcquisitionDate": None})
    ['SeriesDate']
    """
    return sorted(
        name
        for name in metadata.keys() & _SIDECAR_DATES
        if re.match(r"\d{4}", str(metadata[name]).strip())
    )


def _label_key(label: str) -> tuple[int, list[tuple[int, int, str]]]:
    """Sort labels by their numbers, and words such as ``pre`` and ``post`` before and after."""
    word = label.casefold()
    return word.startswith(_LAST) - word.startswith(_FIRST), natural_key(word)


def _entities(scan: Scan) -> frozenset[str]:
    """Return the entities of a scan's name but for participant and session."""
    return frozenset(scan.prefix.split("_")) - {f"sub-{scan.subject}", f"ses-{scan.session}"}


def _name(scan: Scan) -> str:
    return f"sub-{scan.subject}_ses-{scan.session}"


def _time(text: str) -> datetime | None:
    """Read a date or a time (ISO 8601), as it stands on the clock; None for anything else.

    None as well for years of which no scan is.

    >>> _time("2019-06-15T13:45:30.5Z")
    datetime.datetime(2019, 6, 15, 13, 45, 30, 500000)
    >>> _time("01/05/2020") is None
    True
    """
    try:
        time = datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None
    return time if time.year >= _FIRST_YEAR else None
