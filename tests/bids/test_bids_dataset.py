from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.bids.dataset import (
    CONTAINER_TAG_VARIABLE,
    atomic_path,
    check_is_ours,
    check_name,
    dataset_description,
    shared_files_complete,
    write_citations,
    write_json,
    write_participants,
    write_shared_files,
    write_text,
    write_tsv,
)
from msnmo_bids.bids.records import RunRecord
from msnmo_bids.bids.scans import find_scans
from msnmo_bids.errors import BadInputError, ExitCode, MsnmoError

SCANS = (
    "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
    "sub-01/ses-1/anat/sub-01_ses-1_acq-3d_run-2_FLAIR.nii.gz",
    "sub-02/anat/sub-02_FLAIR.nii",
)


def validate(folder: Path) -> list[dict]:
    program = Path(sys.executable).parent / "bids-validator-deno"
    if not program.exists():
        pytest.skip("bids-validator-deno is not installed in this environment")
    ran = subprocess.run([program, folder, "--format", "json"], capture_output=True, text=True)
    return json.loads(ran.stdout)["issues"]["issues"]


def test_the_whole_tree_is_valid_bids(make_dataset, make_output):
    root = make_dataset(*SCANS)
    output = make_output(find_scans(root).scans, root)
    write_citations(output, ["A paragraph."])
    record = RunRecord(output, "1", {})
    record.write(0)
    (record.folder / "msnmo.log").write_text("log\n")
    (output / "group_FLAIR.tsv").write_text("scan\nx\n")
    (output / "group_FLAIR.html").write_text("<html></html>")
    # Who the authors of someone's derivatives are, the program cannot know.
    assert [issue for issue in validate(output) if issue["code"] != "TOO_FEW_AUTHORS"] == []


def test_the_validator_would_see_a_missing_key(make_dataset, make_output):
    root = make_dataset(SCANS[2])
    output = make_output(find_scans(root).scans, root)
    for sidecar in output.rglob("*brain_mask.json"):
        content = json.loads(sidecar.read_text())
        del content["SpatialReference"]
        sidecar.write_text(json.dumps(content))
    assert any(issue["severity"] == "error" for issue in validate(output))


def test_atomic_path_replaces_at_the_end(tmp_path):
    target = tmp_path / "new" / "image.nii.gz"
    with atomic_path(target) as temporary:
        nib.save(nib.Nifti1Image(np.ones((2, 2, 2)), np.eye(4)), temporary)
        assert temporary.parent == target.parent
        assert temporary.name.startswith(".")
        assert not target.exists()
    assert nib.load(target).shape == (2, 2, 2)
    assert [path.name for path in target.parent.iterdir()] == ["image.nii.gz"]


def test_an_image_whose_derivatives_would_have_too_long_names_is_refused(tmp_path):
    labels = "a" * 140
    check_name(Path(f"sub-01_acq-{labels}_FLAIR.nii.gz"))
    with pytest.raises(BadInputError, match="Shorten its labels by ") as caught:
        check_name(Path(f"sub-01_acq-{labels}{labels[:50]}_FLAIR.nii.gz"))
    fewer = int(caught.value.remedy.split()[-1])
    check_name(Path(f"sub-01_acq-{labels}{labels[: 50 - fewer]}_FLAIR.nii.gz"))
    with pytest.raises(BadInputError):
        check_name(Path(f"sub-01_acq-{labels}{labels[: 51 - fewer]}_FLAIR.nii.gz"))


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    target = tmp_path / "group_FLAIR.html"
    target.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        write_text(target, "<html>")
    assert caught.value.filename == str(target)
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_path_leaves_the_old_file_on_an_error(tmp_path):
    target = tmp_path / "table.tsv"
    target.write_text("old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.tsv"]


def test_equal_content_is_not_written_again(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "same")
    os.utime(target, (1, 1))
    write_text(target, "same")
    assert target.stat().st_mtime == 1
    write_text(target, "other")
    assert target.stat().st_mtime > 1


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"x": float("nan")})


def test_tables_say_na(tmp_path):
    write_tsv(tmp_path / "a.tsv", ["a", "b", "c"], [{"a": 1, "b": None}, {"c": "two\twords\n"}])
    assert (tmp_path / "a.tsv").read_text() == "a\tb\tc\n1\tn/a\tn/a\nn/a\tn/a\ttwo words\n"


@pytest.mark.parametrize("place", ["raw/derivatives/msnmo", "out", "deep/er/out put"])
def test_the_link_to_the_input_leads_there(make_dataset, tmp_path, place):
    root = make_dataset()
    output = tmp_path / place
    link = dataset_description(output, root)["DatasetLinks"]["raw"]
    assert " " not in link
    assert (output / unquote(link)).resolve() == root.resolve()


def test_input_with_a_space_and_a_doi(make_dataset, tmp_path):
    root = make_dataset(name="my raw")
    content = json.loads((root / "dataset_description.json").read_text())
    content["DatasetDOI"] = "doi:10.18112/openneuro.ds000001.v1.0.0"
    (root / "dataset_description.json").write_text(json.dumps(content))
    description = dataset_description(tmp_path / "out", root)
    assert description["DatasetLinks"]["raw"] == "../my%20raw"
    assert description["SourceDatasets"] == [
        {
            "URL": "https://doi.org/10.18112/openneuro.ds000001.v1.0.0",
            "DOI": "doi:10.18112/openneuro.ds000001.v1.0.0",
        }
    ]


def test_container(make_dataset, tmp_path, monkeypatch):
    root = make_dataset()
    assert "Container" not in dataset_description(tmp_path, root)["GeneratedBy"][0]
    monkeypatch.setenv(CONTAINER_TAG_VARIABLE, "msnmo/msnmo:1")
    container = dataset_description(tmp_path, root)["GeneratedBy"][0]["Container"]
    assert container == {"Type": "docker", "Tag": "msnmo/msnmo:1", "URI": "docker://msnmo/msnmo:1"}
    monkeypatch.setenv("APPTAINER_CONTAINER", "/x.sif")
    container = dataset_description(tmp_path, root)["GeneratedBy"][0]["Container"]
    assert container["Type"] == "apptainer"


def test_runs_at_the_same_time_leave_one_whole_set(make_dataset, tmp_path):
    root = make_dataset()
    output = tmp_path / "out"

    def participant(number: int) -> None:
        (output / f"sub-{number:02d}").mkdir(parents=True)
        write_shared_files(output, root, ["MS", "NMOSD"])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(participant, range(24)))
    assert shared_files_complete(output)
    write_participants(output)
    rows = (output / "participants.tsv").read_text().split()
    assert rows == ["participant_id", *(f"sub-{number:02d}" for number in range(24))]
    json.loads((output / "dataset_description.json").read_text())
    assert not [path for path in output.iterdir() if path.name.startswith(".tmp")]


def test_without_any_result_the_tree_is_valid_too(make_dataset, tmp_path):
    root, output = make_dataset(), tmp_path / "out"
    output.mkdir()
    write_shared_files(output, root, ["MS"])
    assert not [issue for issue in validate(output) if issue["severity"] == "error"]
    assert shared_files_complete(output)


def test_shared_files_complete_notices_each(make_dataset, tmp_path):
    root, output = make_dataset(), tmp_path / "out"
    (output / "sub-01").mkdir(parents=True)
    write_shared_files(output, root, ["MS"])
    files = [path for path in output.iterdir() if path.is_file()]
    assert len(files) == 9
    for file in files:
        content = file.read_bytes()
        file.unlink()
        assert not shared_files_complete(output), file.name
        file.write_bytes(content)
    assert shared_files_complete(output)


def test_another_data_set_is_not_overwritten(make_dataset, tmp_path):
    check_is_ours(tmp_path / "missing")
    root = make_dataset()
    with pytest.raises(MsnmoError) as caught:
        check_is_ours(root)
    assert caught.value.exit_code == ExitCode.CANNOT_CREATE_OUTPUT
    assert "Tiny" in str(caught.value)
    output = tmp_path / "out"
    output.mkdir()
    write_shared_files(output, root, ["MS"])
    check_is_ours(output)


def test_citations_hold_each_text_once_with_references(tmp_path):
    write_citations(tmp_path, ["BET was used [@bet].", "N4 was used.", "BET was used [@bet]."])
    text = (tmp_path / "logs" / "CITATION.md").read_text()
    assert text.count("BET was used [@bet].") == text.count("N4 was used.") == 1
    assert "@article{bet," in (tmp_path / "logs" / "CITATION.bib").read_text()
