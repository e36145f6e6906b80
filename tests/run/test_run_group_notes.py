"""What the group level says of scans that do not go together."""

from __future__ import annotations

from dataclasses import replace

from heads import diagnosis, entry

from msnmo_bids.run.group import made_differently


def record(number: int, **settings):
    relative = f"sub-{number:02d}/anat/sub-{number:02d}_FLAIR.nii.gz"
    content = diagnosis(relative, Settings={"threshold": 0.7, "device": "cpu"} | settings)
    return replace(entry(relative, "complete"), diagnosis=content)


def test_scans_made_with_other_settings_are_named():
    alike = [record(1), record(2), record(3, device="cuda")]
    assert made_differently(alike) == []
    assert made_differently([*alike, entry("sub-09/anat/sub-09_FLAIR.nii.gz")]) == []
    [line] = made_differently([*alike, record(4, threshold=0.95)])
    assert "another version, weights or settings than most" in line
    assert "sub-04" in line
    assert "sub-01" not in line
