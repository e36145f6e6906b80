"""The last lines of ``make demo``."""

from __future__ import annotations

from dev.demo import summary
from msnmo_bids.bids.dataset import write_json, write_tsv


def test_what_was_found_and_which_page_to_open(tmp_path):
    bids, out = tmp_path / "bids", tmp_path / "out"
    people = [
        {"participant_id": "sub-01", "diagnosis": "MS"},
        {"participant_id": "sub-02", "diagnosis": "NMOSD"},
    ]
    write_tsv(bids / "participants.tsv", list(people[0]), people)
    found = {"status": "complete", "diagnosis": "MS", "lesion_count": 30, "lesion_volume_ml": 19.96}
    doubt = {"diagnosis": "indeterminate", "reason": "No class reaches .97"}
    rows = [
        {"participant_id": "sub-01", **found, "lesion_count": 28},
        {"participant_id": "sub-01", **found},
        {"participant_id": "sub-02", **found, **doubt},
    ]
    columns = ["participant_id", *found, "reason"]
    write_tsv(out / "group_FLAIR.tsv", columns, rows)
    name = "sub-01_ses-2_space-ses1ses2_desc-msnmo_changes.json"
    write_json(out / "sub-01" / "ses-2" / "anat" / name, {"Counts": {"new": 2}})
    assert list(summary(bids, out)) == [
        "sub-01 (simulated MS): 30 lesions, 20.0 ml; the pattern of MS is named; 2 new since the "
        "visit before.",
        "sub-02 (simulated NMOSD): 30 lesions, 20.0 ml; no diagnosis is named (No class reaches "
        ".97).",
        f"Open {out}/group_FLAIR.html in a browser (all scans), then {out}/sub-01.html (images, "
        "lesions, changes).",
    ]
