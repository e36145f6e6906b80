"""The methods section shows what the records say of themselves, and lists what it cites."""

from __future__ import annotations

from heads import diagnosis

from msnmo_bids.reports.methods import bibliography, calibration, methods

SCAN = "sub-01/anat/sub-01_FLAIR.nii.gz"


def test_calibration() -> None:
    assert "temperature 1.5) on simulated" in calibration(diagnosis(SCAN)["Calibration"])
    assert "not calibrated" in calibration({"Temperature": 1.0, "Method": "none"})
    matrix = {
        "Temperature": 1.0,
        "Matrix": [[0.51234, 0], [0, 0.25]],
        "Offset": [0, -0.1],
        "Method": "Dirichlet calibration",
        "Data": "simulated",
    }
    assert "(matrix 0.512, 0; 0, 0.25; offset 0, -0.1) on simulated" in calibration(matrix)


def test_citations_are_numbered_in_order_and_all_are_listed() -> None:
    text = "First [@n4] and [@bet], then [@n4] again, and [@of_another_version]."
    found = methods({"FLAIR": diagnosis(SCAN, Methods=text)})
    assert found.paragraphs == ("First [1] and [2], then [1] again, and [of_another_version].",)
    assert [reference.key for reference in found.references] == ["n4", "bet"]


def test_what_was_made_alike_shares_a_text() -> None:
    one, other = diagnosis(SCAN), diagnosis(SCAN, Methods="Otherwise.")
    assert len(methods({"ses-1": one, "ses-2": one}).paragraphs) == 1
    different = methods({"ses-1": one, "ses-2": other, "ses-3": one}).paragraphs
    assert different[0].startswith("ses-1, ses-3: The skull")
    assert different[1] == "ses-2: Otherwise."


def test_nothing_is_known() -> None:
    assert methods({}).paragraphs == ()
    assert methods({"FLAIR": {"Diagnosis": "MS"}}).paragraphs == ()


def test_the_bibliography_is_read_whole() -> None:
    known = bibliography()
    assert known["bet"].text == (
        "Smith SM Fast robust automated brain extraction. Human Brain Mapping 17(3):143–155, 2002."
    )
    assert all(reference.doi.startswith("10.") for reference in known.values())
