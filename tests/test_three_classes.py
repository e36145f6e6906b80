"""Weights with three classes, from the network to the group's page."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from heads import diagnosis
from pages import Page
from site_data import Site, brain

from msnmo_bids.bids.dataset import write_shared_files
from msnmo_bids.bids.records import ScanRecord, read_scan
from msnmo_bids.bids.resume import glance
from msnmo_bids.bids.scans import Scan, find_scans
from msnmo_bids.group.write import write_group
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.reports.participant import write_participant_report
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.workflows.lesions import network_step, segment_step
from msnmo_bids.workflows.nodes import write_like
from msnmo_bids.workflows.preprocessing import conform_step, to_cube_step
from msnmo_bids.workflows.scan import run_record, write_derivatives_step

CLASSES = ("MS", "NMOSD", "healthy control")
KNOWN = {"01": "MS", "02": "NMOSD", "03": "Healthy Control"}
SIDE = [32, 32, 32]
TOOL = {"Tool": "none", "Version": "n/a", "Settings": {}}
QUALITY = {"Level": "green", "Reasons": [], "Contrast": "FLAIR", "Figures": {}}


def process(scan: Scan, weights: Path, metadata: WeightsMetadata, out: Path, work: Path) -> None:
    """Run the nodes of a scan, but for the tools and the atlas."""
    work.mkdir(parents=True)
    conformed = conform_step(in_file=str(scan.path)).compute(work)
    flair = Path(conformed["out_file"])
    inside = nib.load(flair).get_fdata() > 0
    images = {"in_file": str(flair), "mask_file": str(work / "mask.nii")}
    write_like(inside.astype(np.uint8), flair, work / "mask.nii")
    cube = to_cube_step(**images, shape=SIDE).compute(work)
    scores = network_step(cube_file=cube["cube_file"], weights=str(weights)).compute(work)
    lesion = np.load(scores["probability_file"])
    threshold = float(np.quantile(lesion[np.load(cube["cube_file"]) != 0], 0.8))
    for name, array in (("regions", np.zeros(inside.shape, np.int8)), ("to_mni", np.eye(4))):
        np.save(work / f"{name}.npy", array)
    found = segment_step(
        **images, transform_file=cube["transform_file"],
        probability_file=scores["probability_file"], cam_file=scores["cam_file"],
        region_file=str(work / "regions.npy"), mni_file=str(work / "to_mni.npy"),
        class_names=list(metadata.class_names), threshold=threshold, min_volume=0.0,
    ).compute(work)  # fmt: skip
    del found["descriptor_file"]  # of what classifies lesions
    settings = ProcessingSettings("skip", "skip", threshold=threshold, min_lesion_volume=0.0)
    keys = ("class_probabilities", "distance")
    write_derivatives_step(
        scan=scan, raw_image=glance(scan), prefix=scan.prefix, native_file=str(scan.path),
        output_dir=str(out), preproc_file=str(flair), mask_file=images["mask_file"],
        provenance={**run_record(settings, metadata, "1"), "Methods": "Scans were classified."},
        **found, **{key: scores[key] for key in keys}, skull_stripping=TOOL, bias_correction=TOOL,
        info=conformed["info"], quality=QUALITY,
    ).compute(work)  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, tiny_config) -> Path:
    """The output folder of three people with a diagnosis each, participant and group level."""
    folder = tmp_path_factory.mktemp("three")
    site, out = Site(folder / "raw"), folder / "out"
    for number, (subject, known) in enumerate(KNOWN.items()):
        site.add(subject, known, data=brain(number))
    torch.manual_seed(0)
    weights = folder / "weights" / "three.safetensors"
    weights.parent.mkdir()
    metadata = save_weights(
        weights,
        JointNetwork(replace(tiny_config, classes=CLASSES)).eval(),
        WeightsMetadata("three", "1", class_names=CLASSES, cube_shape=tuple(SIDE)),
    )
    write_shared_files(out, site.root, CLASSES)
    scans = find_scans(site.root).scans
    for scan in scans:
        process(scan, weights, metadata, out, folder / "work" / scan.prefix)
    records = [read_scan(out, ScanRecord.of(scan)) for scan in scans]
    for record in records:
        write_participant_report(out, record.subject, [record])
    write_group(out, records, bids_dir=site.root)
    return out


def diagnosis_of(out: Path, subject: str) -> dict:
    return json.loads((out / f"sub-{subject}/anat/sub-{subject}_desc-msnmo_diagnosis.json")
                      .read_text())  # fmt: skip


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_derivatives_hold_every_class(output: Path) -> None:
    desc = {row["desc_id"] for row in table(output / "descriptions.tsv")}
    for subject in KNOWN:
        content = diagnosis_of(output, subject)
        assert tuple(content["Probabilities"]) == CLASSES
        assert sum(content["Probabilities"].values()) == pytest.approx(1, abs=1e-12)
        assert content["Diagnosis"] == max(CLASSES, key=content["Probabilities"].__getitem__)
        assert content["LesionCount"] > 0
        for label, name in (("MS", "MS"), ("NMOSD", "NMOSD"), ("healthycontrol", CLASSES[2])):
            cam = output / f"sub-{subject}/anat/sub-{subject}_space-orig_desc-cam{label}_map.nii.gz"
            assert nib.load(cam).get_fdata().any()
            about = json.loads(Path(str(cam).replace(".nii.gz", ".json")).read_text())
            assert f"Class activation map for {name}," in about["Description"]
            assert f"desc-cam{label}" in desc


def test_the_hand_made_diagnosis_of_other_tests_has_no_key_of_its_own(output: Path) -> None:
    assert diagnosis("sub-01/anat/sub-01_FLAIR.nii.gz").keys() <= diagnosis_of(output, "01").keys()


def test_the_report_shows_every_class(output: Path) -> None:
    source = (output / "sub-01.html").read_text(encoding="utf-8")
    for name, colour in zip(CLASSES, ("#0072B2", "#D55E00", "#009E73"), strict=True):
        assert f'<option value="{name}"' in source  # of the viewer
        assert colour in source
    assert "assumes that the cause is MS or NMOSD" not in Page(source).text


def test_the_group_level_compares_three_classes(output: Path) -> None:
    rows = table(output / "group_FLAIR.tsv")
    for row in rows:
        assert sum(float(row[f"probability_{name}"]) for name in CLASSES) == pytest.approx(1)
    assert [row["participants_diagnosis"] for row in rows] == list(CLASSES)
    counts = table(output / "group_confusion.tsv")
    assert [row["diagnosis"] for row in counts] == list(CLASSES)
    for row, known in zip(counts, KNOWN, strict=True):
        assert row[diagnosis_of(output, known)["Diagnosis"]] == "1"
    page = (output / "group_FLAIR.html").read_text(encoding="utf-8")
    assert "NMOSD against the rest" in Page(page).text
