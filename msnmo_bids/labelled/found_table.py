"""What was found in a site's data, as a table and in words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import read_description, write_text, write_tsv
from msnmo_bids.labelled.scans import Found, LabelledScan, LeftOut
from msnmo_bids.text import aligned

COLUMNS = ("dataset", "participant_id", "session_id", "scan", "site", "diagnosis", "mask", "used",
           "reason")  # fmt: skip
UNKNOWN = "unknown"
SIMULATOR = "msnmo-simulate"


def write_found(found: Found, folder: Path) -> tuple[Path, Path]:
    """Write one row per scan (``data.tsv``) and the counts in words (``data.txt``)."""
    table, text = folder / "data.tsv", folder / "data.txt"
    write_tsv(table, COLUMNS, found_rows(found))
    write_text(text, describe(found))
    return table, text


def found_rows(found: Found) -> list[dict[str, Any]]:
    """Return one row per scan or participant: first what is used, then what is left out.

    The keys are `COLUMNS`; ``used`` and ``mask`` are ``yes`` or ``no``, ``reason`` says why a scan
    is left out, or what is missing of one that is used.
    """
    rows: list[dict[str, Any]] = [
        {
            **_who(scan, scan.scan.prefix),
            "site": scan.site,
            "diagnosis": scan.diagnosis,
            "mask": "yes" if scan.mask else "no",
            "used": "yes",
            "reason": "; ".join(scan.notes),
        }
        for scan in found.scans
    ]
    rows += [{**_who(out, out.name), "used": "no", "reason": out.reason} for out in found.left_out]
    return rows


def describe(found: Found) -> str:
    """Say in a few lines what was found for each diagnosis, site and session."""
    scans = found.scans
    people = len({scan.person for scan in scans})
    masks = sum(scan.mask is not None for scan in scans)
    both = sum(scan.mask is not None and scan.diagnosis is not None for scan in scans)
    lines = [
        f"{_count(len(scans), 'scan')} of {_count(people, 'person', 'people')}: "
        f"{sum(scan.diagnosis is not None for scan in scans)} with a diagnosis, "
        f"{masks} with a lesion mask, {both} with both",
        "",
        *aligned(_count_rows(found)),
    ]
    if found.left_out:
        reasons = Counter(out.reason for out in found.left_out)
        lines += ["", f"Left out: {len(found.left_out)}"]
        lines += [f"  {number} x {reason}" for reason, number in reasons.most_common()]
    if found.notes:
        lines += ["", "Tables:", *(f"  {note}" for note in found.notes)]
    return "\n".join(lines) + "\n"


def _count_rows(found: Found) -> list[tuple[str, ...]]:
    """Count people, scans and masks by diagnosis, site and session."""
    header = ("diagnosis", "site", "session", "people", "scans", "masks")
    groups: dict[tuple[str, str, str], list[LabelledScan]] = {}
    for scan in found.scans:
        key = (scan.diagnosis or UNKNOWN, scan.site, scan.session or "n/a")
        groups.setdefault(key, []).append(scan)
    rows: list[tuple[str, ...]] = [header]
    for key, group in sorted(groups.items()):
        people = {scan.person for scan in group}
        masks = sum(scan.mask is not None for scan in group)
        rows.append((*key, str(len(people)), str(len(group)), str(masks)))
    return rows


def _who(entry: LabelledScan | LeftOut, name: str) -> dict[str, Any]:
    return {
        "dataset": entry.dataset,
        "participant_id": f"sub-{entry.subject}" if entry.subject else None,
        "session_id": f"ses-{entry.session}" if entry.session else None,
        "scan": name,
    }


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def notes_on(found: Found) -> tuple[str, ...]:
    """Say which scans are simulated, and whether any real one has the rarer diagnosis.

    Each is a sentence for the reader of the results.
    """
    scans = found.scans
    simulated = {root for root in {scan.scan.bids_dir for scan in scans} if is_simulated(root)}
    real = [scan for scan in scans if scan.scan.bids_dir not in simulated]
    notes = []
    if count := len(scans) - len(real):
        notes.append(
            f"{count} of {len(scans)} scans are simulated: what is measured on them says nothing "
            "about patients."
        )
    diagnoses = {scan.diagnosis for scan in scans if scan.diagnosis}
    unseen = sorted(diagnoses - {scan.diagnosis for scan in real})
    notes += [f"There is no real scan of {diagnosis} among them." for diagnosis in unseen]
    return tuple(notes)


def is_simulated(root: Path) -> bool:
    """Say whether the simulator made a data set."""
    makers = read_description(root).get("GeneratedBy")
    return isinstance(makers, list) and any(
        isinstance(maker, dict) and maker.get("Name") == SIMULATOR for maker in makers
    )
