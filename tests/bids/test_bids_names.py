from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msnmo_bids.bids.names import (
    bids_uri,
    derivative_kinds,
    derivative_paths,
    figure_path,
    io_spec,
    report_path,
    sidecar,
)
from msnmo_bids.model.weights import SHIPPED_WEIGHTS, read_metadata

ROOT = Path(__file__).parents[2]
LABEL = st.text("abcXYZ019", min_size=1, max_size=4)


def test_every_path_of_the_specification():
    paths = derivative_paths("sub-01/ses-1/anat", "sub-01_ses-1_acq-3d", ["MS", "NMOSD"])
    assert {
        kind: path.removeprefix("sub-01/ses-1/anat/sub-01_ses-1_acq-3d_")
        for kind, path in paths.items()
    } == {
        "preproc": "desc-preproc_FLAIR.nii.gz",
        "brain_mask": "space-orig_desc-brain_mask.nii.gz",
        "lesion_mask": "space-orig_label-L_desc-msnmo_mask.nii.gz",
        "lesion_probability": "space-orig_label-L_desc-msnmo_probseg.nii.gz",
        "lesion_labels": "space-orig_seg-lesions_dseg.nii.gz",
        "lesion_table": "space-orig_seg-lesions_dseg.tsv",
        "morphometry": "desc-lesions_morph.tsv",
        "cam_MS": "space-orig_desc-camMS_map.nii.gz",
        "cam_NMOSD": "space-orig_desc-camNMOSD_map.nii.gz",
        "quality": "desc-msnmo_quality.json",
        "diagnosis": "desc-msnmo_diagnosis.json",
    }


def test_the_diagnosis_is_written_last():
    assert derivative_kinds(["MS", "NMOSD"])[-1] == "diagnosis"


def test_class_names_become_alphanumeric_entities():
    assert "desc-camotherMS_map" in derivative_paths("f", "sub-01", ["other MS"])["cam_other MS"]


@given(
    sub=LABEL,
    entities=st.lists(st.sampled_from(io_spec()["entity_order"][1:]), unique=True),
    label=LABEL,
)
def test_entities_stay_in_the_order_of_bids(sub, entities, label):
    order = io_spec()["entity_order"]
    own = sorted(set(entities), key=order.index)
    prefix = "_".join([f"sub-{sub}", *(f"{entity}-{label}" for entity in own)])
    for path in derivative_paths("f", prefix, ["MS"]).values():
        parts = path.split("/")[-1].split("_")[:-1]
        places = [order.index(part.split("-")[0]) for part in parts]
        assert places == sorted(set(places))
        assert all(any(part.startswith(one) for part in parts) for one in prefix.split("_"))


def test_entities_of_a_raw_image_never_stand_twice():
    paths = derivative_paths("f", "sub-01_space-T1w_desc-brain", ["MS"])
    assert paths["lesion_mask"] == "f/sub-01_space-T1w+orig_label-L_desc-brain+msnmo_mask.nii.gz"
    assert paths["preproc"] == "f/sub-01_space-T1w_desc-brain+preproc_FLAIR.nii.gz"
    others = derivative_paths("f", "sub-01_space-T1w_desc-raw", ["MS"])
    assert not {*paths.values()} & {*others.values()}


@pytest.mark.parametrize("path", ["a/b.nii.gz", "a/b.nii", "a/b.tsv"])
def test_sidecar(path):
    assert sidecar(path) == "a/b.json"


def test_no_sidecar_of_a_sidecar():
    with pytest.raises(ValueError, match="no sidecar"):
        sidecar("a/b.json")


def test_figures_and_reports():
    assert figure_path("01", "sub-01_run-2", "cam") == (
        "sub-01/figures/sub-01_run-2_desc-cam_FLAIR.svg"
    )
    assert report_path("01") == "sub-01.html"
    with pytest.raises(ValueError, match="brainmask"):
        figure_path("01", "sub-01", "nothing")


def test_bids_uris():
    assert bids_uri("sub-01/a.nii", "raw") == "bids:raw:sub-01/a.nii"
    assert bids_uri("sub-01/a.nii") == "bids::sub-01/a.nii"


def test_the_container_check_expects_what_the_shipped_weights_write():
    expected = (ROOT / "containers" / "expected-files.txt").read_text(encoding="utf-8").split("\n")
    classes = read_metadata(SHIPPED_WEIGHTS).class_names
    own = set(derivative_paths("sub-01/anat", "sub-01", classes).values())
    beside = {sidecar(name) for name in own if not name.endswith(".json")}
    assert {name for name in expected if "/anat/" in name} == own | beside
