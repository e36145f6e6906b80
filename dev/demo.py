"""What ``make demo`` says at its end: what was found, and which page to open."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from msnmo_bids.bids.names import io_spec, report_path
from msnmo_bids.bids.text_files import Row, read_tsv
from msnmo_bids.decision import INDETERMINATE


def summary(bids_dir: Path, output_dir: Path) -> Iterator[str]:
    """Say in one line per person what was found, and in a last one which pages to open.

    `bids_dir` is a data set of ``msnmo-simulate``, `output_dir` has the group level.
    """
    truth = {
        row["participant_id"]: row["diagnosis"]
        for row in read_tsv(bids_dir / "participants.tsv").rows
    }
    reports = io_spec()["reports"]
    rows = read_tsv(output_dir / reports["group_table"]).rows
    people = [(name, list(scans)) for name, scans in groupby(rows, lambda r: r["participant_id"])]
    for name, scans in people:
        yield f"{name} (simulated {truth[name]}): {_found(scans[-1])}{_new(output_dir / name)}."
    largest, _ = max(people, key=lambda person: len(person[1]))
    first = output_dir / report_path(largest.removeprefix("sub-"))
    page = output_dir / reports["group_page"]
    yield f"Open {page} in a browser (all scans), then {first} (images, lesions, changes)."


def _found(row: Row) -> str:
    if row["status"] != "complete":
        return row["reason"]
    load = f"{row['lesion_count']} lesions, {float(row['lesion_volume_ml']):.1f} ml"
    if row["diagnosis"] == INDETERMINATE:
        return f"{load}; no diagnosis is named ({row['reason']})"
    return f"{load}; the pattern of {row['diagnosis']} is named"


def _new(folder: Path) -> str:
    """Say how many lesions the last visit has that the one before has not."""
    records = sorted(folder.glob("ses-*/anat/*_changes.json"))
    if not records:
        return ""
    counts = json.loads(records[-1].read_text(encoding="utf-8"))["Counts"]
    return f"; {counts['new']} new since the visit before"


if __name__ == "__main__":
    print("\n".join(summary(Path(sys.argv[1]), Path(sys.argv[2]))))
