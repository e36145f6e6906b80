from __future__ import annotations

import pytest

from msnmo_bids.bids.names import JSON_KINDS, derivative_kinds
from msnmo_bids.bids.sidecars import sidecar_for

RECORD = {
    "Threshold": 0.4,
    "MinimumLesionVolume": 3.0,
    "Model": {"Name": "m", "Version": "1", "SHA256": "f" * 64},
    "Device": "cpu",
    "Precision": "fp32",
    "RandomSeed": 0,
    "SkullStripping": {"Tool": "deepbet", "Version": "1.0.2", "Settings": {}},
    "BiasCorrection": {"Tool": "antspyx", "Version": "0.6.3", "Settings": {}},
    "Probabilities": {"MS": 1.0},
}
KINDS = [kind for kind in derivative_kinds(["MS", "NMOSD"]) if kind not in JSON_KINDS]


def content(kind: str) -> dict:
    return sidecar_for(
        kind,
        source="sub-01/anat/sub-01_FLAIR.nii.gz",
        folder="sub-01/anat",
        prefix="sub-01",
        record=RECORD,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_all_say(kind):
    said = content(kind)
    assert said["Description"]
    assert said["Sources"][0] == "bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz"
    assert all(source.startswith(("bids:raw:sub-", "bids::sub-")) for source in said["Sources"])
    assert said["SkullStripping"] == RECORD["SkullStripping"]
    assert "Probabilities" not in said
    needs_space = kind not in ("preproc", "morphometry")
    assert said.get("SpatialReference") == ("orig" if needs_space else None)


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"preproc", "brain_mask"}))
def test_what_the_network_made_names_the_weights(kind):
    said = content(kind)
    assert {"Model", "Device", "Precision", "RandomSeed", "BiasCorrection"} <= said.keys()


@pytest.mark.parametrize(
    "kind", ["lesion_mask", "lesion_probability", "lesion_labels", "lesion_table", "morphometry"]
)
def test_lesions_say_their_threshold(kind):
    assert (content(kind)["Threshold"], content(kind)["MinimumLesionVolume"]) == (0.4, 3.0)


def test_types():
    assert content("brain_mask")["Type"] == "Brain"
    assert content("lesion_mask")["Type"] == "Lesion"
    assert content("preproc")["SkullStripped"] is True


def test_label_image_and_table_share_one_sidecar():
    assert content("lesion_labels") == content("lesion_table")


def test_a_record_may_lack_keys():
    said = sidecar_for("lesion_mask", source="a", folder="b", prefix="sub-01", record={})
    assert "Threshold" not in said


@pytest.mark.parametrize("kind", ["diagnosis", "quality", "nonsense"])
def test_no_sidecar(kind):
    with pytest.raises(ValueError, match="no sidecar"):
        content(kind)
