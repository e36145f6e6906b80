"""What the group level says of scans that do not go together."""

from __future__ import annotations

from dataclasses import replace

from heads import diagnosis, entry

from msnmo_bids.run.group import copies, made_differently


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


def test_scans_of_the_same_image_are_named():
    def copy(number, checksum):
        one = record(number)
        return replace(one, diagnosis={**one.diagnosis, "RawImage": {"VoxelsSHA256": checksum}})

    assert copies([copy(1, "a"), copy(2, "b"), record(3), record(4)]) == []
    [line] = copies([copy(1, "a"), copy(2, "b"), copy(3, "a")])
    assert "a copy of another one's" in line
    assert "sub-01" in line
    assert "sub-03" in line
    assert "sub-02" not in line
