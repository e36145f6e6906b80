"""The methods section names what really ran, and cites it."""

from __future__ import annotations

import re

import pytest
from heads import diagnosis

from msnmo_bids.reports.methods import bibliography, calibration, methods

SCAN = "sub-01/anat/sub-01_FLAIR.nii.gz"


def text(**changes: object) -> str:
    return " ".join(methods({"FLAIR": diagnosis(SCAN, **changes)}).paragraphs)


def tool(name: str, version: str = "1", **settings: object) -> dict[str, object]:
    return {"Tool": name, "Version": version, "Settings": settings}


@pytest.mark.parametrize(
    ("record", "said", "not_said"),
    [
        (tool("deepbet", "1.0.2"), "deepbet 1.0.2", "FSL"),
        (tool("FSL BET", "6.0.7", frac=0.4), "FSL 6.0.7", "deepbet"),
        (tool("FSL BET", "unknown", frac=0.4), "threshold 0.4", "unknown"),
        (tool("msnmo foreground"), "came without a skull", "removed with"),
        (tool("other"), "other 1", "FSL"),
    ],
)
def test_skull_stripping(record: dict, said: str, not_said: str) -> None:
    paragraph = text(SkullStripping=record)
    assert said in paragraph
    assert not_said not in paragraph


@pytest.mark.parametrize(
    ("record", "said", "not_said"),
    [
        (tool("antspyx N4", "0.6.3"), "antspyx 0.6.3", "N4BiasFieldCorrection"),
        (tool("ANTs N4BiasFieldCorrection", "2.6.0"), "of ANTs 2.6.0", "antspyx"),
        (tool("none", "n/a"), "was not corrected", "N4"),
    ],
)
def test_bias_correction(record: dict, said: str, not_said: str) -> None:
    paragraph = text(BiasCorrection=record)
    assert said in paragraph
    assert not_said not in paragraph


def test_calibration() -> None:
    assert "temperature 1.5) on simulated" in text()
    assert "not calibrated" in text(Calibration={"Temperature": 1.0, "Method": "none"})


def test_a_calibration_curve_is_told_of_and_cited() -> None:
    record = {
        "Temperature": 1.0, "Margins": [-1.0, 1.0], "Chances": [0.05, 0.75],
        "Method": "isotonic calibration", "Data": "simulated",
    }  # fmt: skip
    found = methods({"FLAIR": diagnosis(SCAN, Calibration=record)})
    assert "(a curve that gives the second class 0.05 to 0.75) on simulated" in found.paragraphs[0]
    assert "isotonic_calibration" in [reference.key for reference in found.references]
    assert "@" not in calibration(record)


def test_a_lesion_network_is_told_of() -> None:
    asked = {"File": "lesions.safetensors", "SHA256": "0"}
    assert "a network of its own for segmentation (lesions) gave" in text(
        Model={"LesionNetwork": asked}
    )
    for alone in (text(Model={"LesionNetwork": None}), text()):
        assert "gave a lesion probability for each voxel and a score" in alone


def test_citations_are_numbered_in_order_and_all_are_listed() -> None:
    found = methods({"FLAIR": diagnosis(SCAN)})
    numbers = [int(n) for n in re.findall(r"\[(\d+)\]", " ".join(found.paragraphs))]
    assert list(dict.fromkeys(numbers)) == list(range(1, len(found.references) + 1))
    assert found.references[0].key == "deepbet"
    assert "joint_model" in [reference.key for reference in found.references]
    assert "bet" not in [reference.key for reference in found.references]
    assert "[@" not in " ".join(found.paragraphs)


def test_scans_processed_alike_share_a_text() -> None:
    one, other = diagnosis(SCAN), diagnosis(SCAN, SkullStripping=tool("FSL BET"))
    assert len(methods({"ses-1": one, "ses-2": one}).paragraphs) == 2
    different = methods({"ses-1": one, "ses-2": other}).paragraphs
    assert different[0].startswith("Scans ses-1. ")
    assert different[1].startswith("Scans ses-2. ")


def test_nothing_ran() -> None:
    assert methods({}).paragraphs == ()


def test_the_bibliography_is_read_whole() -> None:
    known = bibliography()
    assert {"bet", "deepbet", "n4", "ants", "joint_model", "nipype", "pybids", "bids"} <= set(known)
    assert known["bet"].text == (
        "Smith SM Fast robust automated brain extraction. Human Brain Mapping 17(3):143–155, 2002."
    )
    assert all(reference.doi.startswith("10.") for reference in known.values())
