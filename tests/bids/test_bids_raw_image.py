"""Whether the raw image is still the one that derivatives were made from."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from msnmo_bids.bids.raw_image import CHANGED, SIDECAR_CHANGED, glance, identify, why_other_image
from msnmo_bids.bids.scans import find_scans
from msnmo_bids.errors import BadInputError

POINTERS = {
    "git-annex": b"/annex/objects/SHA256E-s999--aa.nii.gz\n",
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 999\n",
}


@pytest.fixture
def scan(make_dataset):
    return find_scans(make_dataset("sub-01/anat/sub-01_FLAIR.nii.gz")).scans[0]


@pytest.fixture
def recorded(scan):
    return identify(scan, glance(scan))


def test_a_copy_of_the_same_image_is_the_same(scan, recorded):
    assert why_other_image(scan, recorded) is None
    os.utime(scan.path, (1e9, 1e9))
    assert why_other_image(scan, recorded) is None


def test_the_checksum_decides_where_size_and_time_do_not(scan, recorded):
    content = bytearray(scan.path.read_bytes())
    content[-1] ^= 1
    scan.path.write_bytes(content)
    os.utime(scan.path, (1e9, 1e9))
    assert scan.path.stat().st_size == recorded["Size"]
    assert why_other_image(scan, recorded) == CHANGED
    scan.path.write_bytes(bytes(content) + b"more")
    assert why_other_image(scan, recorded) == CHANGED


def test_nothing_is_read_where_size_and_time_are_the_same(scan, recorded, monkeypatch):
    def read(*_):
        raise AssertionError("the checksum was computed")

    monkeypatch.setattr("msnmo_bids.bids.raw_image._checksum", read)
    assert why_other_image(scan, recorded) is None
    os.utime(scan.path, (1e9, 1e9))
    with pytest.raises(AssertionError, match="computed"):
        why_other_image(scan, recorded)


def test_what_was_used_of_the_sidecar_counts(scan, recorded):
    assert why_other_image(replace(scan, skull_stripped=False), recorded) == SIDECAR_CHANGED


@pytest.mark.parametrize("kind", [*POINTERS, "link"])
def test_of_an_image_whose_content_is_elsewhere_nobody_can_tell(scan, recorded, kind):
    scan.path.unlink()
    if kind == "link":
        scan.path.symlink_to("../../.git/annex/objects/nothing")
    else:
        scan.path.write_bytes(POINTERS[kind])
    assert glance(scan) is None
    assert why_other_image(scan, recorded) is None


def test_an_image_that_changes_while_it_is_processed_is_refused(scan):
    seen = glance(scan)
    os.utime(scan.path, (1e9, 1e9))
    with pytest.raises(BadInputError, match="changed while it was processed"):
        identify(scan, seen)


@pytest.mark.parametrize("recorded", [None, "unknown", []])
def test_results_that_do_not_say_of_which_image_they_are(scan, recorded):
    assert "does not say which image" in why_other_image(scan, recorded)
