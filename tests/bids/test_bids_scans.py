from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from msnmo_bids.bids.scans import find_scans, read_filters, select_subjects
from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.text import aligned

THREE = (
    "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_acq-3d_run-1_FLAIR.nii",
    "sub-02/anat/sub-02_FLAIR.nii.gz",
)


def relatives(selection) -> list[str]:
    return [scan.relative for scan in selection.scans]


def test_every_flair_is_found(make_dataset):
    root = make_dataset(*THREE, "sub-02/anat/sub-02_T1w.nii.gz")
    selection = find_scans(root)
    assert relatives(selection) == sorted(THREE)
    scan = selection.scans[1]
    assert (scan.subject, scan.session, scan.prefix) == ("01", "2", "sub-01_ses-2_acq-3d_run-1")
    assert scan.folder == "sub-01/ses-2/anat"
    assert scan.path == root / scan.relative
    assert scan.skull_stripped is None


def test_participants_without_flair_are_listed(make_dataset):
    root = make_dataset(*THREE, "sub-03/anat/sub-03_T1w.nii.gz")
    selection = find_scans(root)
    assert selection.without_flair == ("03",)
    assert selection.subjects == ("01", "02", "03")


def test_derivatives_and_other_folders_are_not_input(make_dataset):
    root = make_dataset(
        *THREE,
        "derivatives/other/sub-01/anat/sub-01_FLAIR.nii.gz",
        "sourcedata/sub-09/anat/sub-09_FLAIR.nii.gz",
        "sub-01/ses-1/extra/sub-01_ses-1_acq-x_FLAIR.nii.gz",
    )
    assert relatives(find_scans(root)) == sorted(THREE)


def test_links_without_content_are_scans(make_dataset):
    root = make_dataset(THREE[2])
    link = root / "sub-03/anat/sub-03_FLAIR.nii.gz"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../.git/annex/objects/xx/yy/MD5E-s100--abc.nii.gz")
    assert "sub-03/anat/sub-03_FLAIR.nii.gz" in relatives(find_scans(root))


def test_participant_folders_may_be_links(make_dataset):
    root = make_dataset(THREE[2])
    (root / "sub-02").rename(root.parent / "elsewhere")
    (root / "sub-02").symlink_to(root.parent / "elsewhere")
    assert relatives(find_scans(root)) == [THREE[2]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sub-01/ses-1/anat/sub-01_FLAIR.nii.gz", "name is not BIDS"),
        ("sub-02/anat/sub-01_FLAIR.nii.gz", "name is not BIDS"),
        ("sub-02/anat/sub-02_FLAIR.nii", "same scan"),
        ("sub-02/anat/sub-02_part-phase_FLAIR.nii.gz", "no magnitude"),
        ("sub-02/anat/sub-02_old_FLAIR.nii.gz", "name is not BIDS"),
        ("sub-02/anat/sub-02_acq-_FLAIR.nii.gz", "name is not BIDS"),
        ("sub-02/anat/sub-02_acq-a_acq-b_FLAIR.nii.gz", "name is not BIDS"),
    ],
)
def test_what_is_left_out_is_said(make_dataset, caplog, name, text):
    root = make_dataset(*THREE, name)
    with caplog.at_level(logging.INFO):
        selection = find_scans(root)
    assert len(selection.scans) == 3
    assert text in caplog.text


def test_unusual_names_are_used_and_named(make_dataset, caplog):
    names = ("sub-02/anat/sub-02_foo-bar_FLAIR.nii.gz", "sub-CON-01/anat/sub-CON-01_FLAIR.nii.gz")
    assert set(names) <= set(relatives(find_scans(make_dataset(*THREE, *names))))
    assert f"no entity of a raw FLAIR: foo- (1): {names[0]}" in caplog.text
    assert f"labels are letters and digits: 'CON-01' (1): {names[1]}" in caplog.text
    assert all(name not in caplog.text for name in THREE)


def test_a_link_to_itself_stops_nothing(make_dataset, caplog):
    root = make_dataset(*THREE)
    (root / "sub-09").symlink_to("sub-09")
    assert relatives(find_scans(root)) == sorted(THREE)
    assert "links to what is not there (is the disk mounted?) (1): sub-09" in caplog.text


def test_settings_of_a_data_set_without_content_are_not_passed_over(make_dataset, caplog):
    root = make_dataset(*THREE)
    description = root / "dataset_description.json"
    description.unlink()
    description.symlink_to(".git/annex/objects/xx/yy")
    assert len(find_scans(root).scans) == 3
    assert "dataset_description.json: cannot be read" in caplog.text
    (root / ".bidsignore").symlink_to(".git/annex/objects/xx/zz")
    with pytest.raises(MsnmoError, match=r"\.bidsignore: cannot be read"):
        find_scans(root)


def test_bidsignore_is_honoured(make_dataset, caplog):
    root = make_dataset(*THREE, "sub-02/anat/sub-02_acq-x_FLAIR.nii.gz")
    (root / ".bidsignore").write_text("# not yet\nsub-01/ses-1/\n*_acq-*_FLAIR.nii*\n!*acq-3d*\n")
    with caplog.at_level(logging.INFO):
        assert relatives(find_scans(root)) == list(THREE[1:])
    left_out = (THREE[0], "sub-02/anat/sub-02_acq-x_FLAIR.nii.gz")
    for name in left_out:
        assert caplog.text.count(f"{name}: left out (.bidsignore)") == 1
    (root / ".bidsignore").write_bytes(b"\xff")
    with pytest.raises(MsnmoError, match=r"\.bidsignore: cannot be read"):
        find_scans(root)


def test_sidecars_inherit_and_the_nearest_wins(make_dataset):
    root = make_dataset(*THREE)
    (root / "FLAIR.json").write_text(json.dumps({"SkullStripped": True, "EchoTime": 0.1}))
    (root / "acq-3d_FLAIR.json").write_text(json.dumps({"EchoTime": 0.2}))
    (root / "sub-02/anat/sub-02_FLAIR.json").write_text(json.dumps({"SkullStripped": False}))
    first, second, third = find_scans(root).scans
    assert (first.skull_stripped, first.metadata["EchoTime"]) == (True, 0.1)
    assert (second.skull_stripped, second.metadata["EchoTime"]) == (True, 0.2)
    assert (third.skull_stripped, third.metadata["EchoTime"]) == (False, 0.1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{broken", "cannot be read"),
        ("", "cannot be read"),
        ("[1, 2]", "holds a list"),
        ("true", "holds a single value"),
        ('{"SkullStripped": "yes"}', 'SkullStripped is "yes", not true or false: ignored'),
        ('{"SkullStripped": 2}', "SkullStripped is 2, not true or false: ignored"),
        ('{"SkullStripped": [true]}', "SkullStripped is a list or an object"),
        ('{"SkullStripped": NaN}', "SkullStripped is NaN, not a number: ignored"),
    ],
)
def test_a_bad_sidecar_stops_nothing_and_is_named(make_dataset, caplog, content, words):
    root = make_dataset(*THREE)
    (root / "sub-02/anat/sub-02_FLAIR.json").write_text(content)
    scans = find_scans(root).scans
    assert [scan.skull_stripped for scan in scans] == [None, None, None]
    [line] = [record.getMessage() for record in caplog.records]
    assert words in line
    assert line.endswith("(1): sub-02/anat/sub-02_FLAIR.json")
    assert [len(scan.notes) for scan in scans] == [0, 0, 1]


def test_a_sidecar_whose_content_is_elsewhere_is_named_with_the_remedy(make_dataset, caplog):
    root = make_dataset(*THREE)
    sidecar = root / "sub-02/anat/sub-02_FLAIR.json"
    sidecar.symlink_to("../../.git/annex/objects/ab/cd/key.json")
    assert len(find_scans(root).scans) == 3
    said = "sidecars without content, ignored: run datalad get (1): sub-02/anat/sub-02_FLAIR.json"
    assert said in "\n".join(caplog.messages)


@pytest.mark.parametrize(
    ("pointer", "command"),
    [
        ("/annex/objects/MD5E-s210--0123456789abcdef.json\n", "datalad get"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 210\n", "git lfs pull"),
    ],
)
def test_a_sidecar_that_points_to_its_content_is_named_with_the_remedy(
    make_dataset, caplog, pointer, command
):
    root = make_dataset(*THREE)
    (root / "sub-02/anat/sub-02_FLAIR.json").write_text(pointer)
    assert len(find_scans(root).scans) == 3
    [line] = [record.getMessage() for record in caplog.records]
    assert f"sidecars without content, ignored: run {command}" in line
    assert line.endswith("(1): sub-02/anat/sub-02_FLAIR.json")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_sidecars_in_other_encodings_are_read(make_dataset, encoding):
    root = make_dataset(*THREE)
    content = '{"SkullStripped": true, "InstitutionName": "Málaga"}'.encode(encoding)
    (root / "sub-02/anat/sub-02_FLAIR.json").write_bytes(content)
    scan = find_scans(root).scans[2]
    assert (scan.skull_stripped, scan.metadata["InstitutionName"]) == (True, "Málaga")


@pytest.mark.parametrize(
    ("value", "stripped"),
    [('"true"', True), ('" False "', False), ("1", True), ("0.0", False), ("null", None)],
)
def test_a_type_that_leaves_no_doubt_is_taken_and_named_once(make_dataset, caplog, value, stripped):
    root = make_dataset(*THREE)
    for name in ("sub-01_ses-1_FLAIR.json", "sub-01_ses-2_FLAIR.json"):
        (root / "sub-01" / name).write_text(f'{{"SkullStripped": {value}}}')
    assert [scan.skull_stripped for scan in find_scans(root).scans] == [stripped, stripped, None]
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (stripped is not None)
    names = "(2): sub-01/sub-01_ses-1_FLAIR.json, sub-01/sub-01_ses-2_FLAIR.json"
    assert all(line.startswith("SkullStripped is ") and line.endswith(names) for line in lines)


@pytest.mark.parametrize("content", [b'\xef\xbb\xbf{"Name": "t"}', b"{broken"])
def test_a_description_with_a_fault_is_named_and_stops_nothing(make_dataset, caplog, content):
    root = make_dataset(*THREE)
    (root / "dataset_description.json").write_bytes(content)
    assert len(find_scans(root).scans) == 3
    assert ("dataset_description.json: cannot be read" in caplog.text) == (content == b"{broken")


def test_a_description_that_is_a_list_stops_with_a_remedy(make_dataset):
    root = make_dataset(*THREE)
    (root / "dataset_description.json").write_text('[{"Name": "t"}]')
    with pytest.raises(MsnmoError, match="does not hold fields in braces") as caught:
        find_scans(root)
    assert caught.value.exit_code == ExitCode.INVALID_BIDS


def test_participant_and_session_labels(make_dataset):
    root = make_dataset(*THREE)
    selection = find_scans(root, participants=["sub-01"], sessions=["ses-2"])
    assert relatives(selection) == [THREE[1]]
    assert [scan.relative for scan in selection.available] == list(THREE[:2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"participants": ["01", "07", "08"]}, ["07, 08", "01, 02"]),
        ({"sessions": ["9"]}, ["session: 9", "1, 2"]),
        ({"participants": ["02"], "sessions": ["1"]}, ["session: 1"]),
        ({"filters": {"acquisition": "2d"}}, ["no FLAIR fits"]),
    ],
)
def test_nothing_selected(make_dataset, arguments, words):
    root = make_dataset(*THREE)
    with pytest.raises(MsnmoError) as caught:
        find_scans(root, **arguments)
    assert caught.value.exit_code == ExitCode.NOTHING_SELECTED
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize("files", [(), ("sub-01/anat/sub-01_T1w.nii.gz",)])
def test_no_input(make_dataset, files):
    with pytest.raises(MsnmoError) as caught:
        find_scans(make_dataset(*files))
    assert caught.value.exit_code == ExitCode.INPUT_MISSING


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"acquisition": "3d"}, THREE[1:2]),
        ({"acquisition": None}, (THREE[0], THREE[2])),
        ({"acquisition": "*"}, THREE[1:2]),
        ({"session": ["1", None]}, (THREE[0], THREE[2])),
        ({"run": 1}, THREE[1:2]),
        ({"extension": ".nii"}, THREE[1:2]),
    ],
)
def test_filter_files_as_of_fmriprep(make_dataset, tmp_path, query, expected):
    file = tmp_path / "filter.json"
    file.write_text(json.dumps({"flair": query, "t1w": {"acquisition": "x"}}))
    selection = find_scans(make_dataset(*THREE), filters=read_filters(file))
    assert sorted(relatives(selection)) == sorted(expected)


@pytest.mark.parametrize(
    "content",
    ["{broken", "[]", '{"flair": []}', '{"flair": {"suffix": "T1w"}}', None],
)
def test_bad_filter_files(tmp_path, content):
    file = tmp_path / "filter.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError) as caught:
        read_filters(file)
    assert str(file) in str(caught.value)


def test_a_filter_with_an_unknown_entity(make_dataset):
    with pytest.raises(UsageError, match="flair"):
        find_scans(make_dataset(*THREE), filters={"acquisitoin": "3d"})


def test_relative_input_folder(make_dataset, monkeypatch):
    root = make_dataset(*THREE)
    monkeypatch.chdir(root.parent)
    scan = find_scans(Path("raw")).scans[0]
    assert scan.path.is_absolute()
    assert scan.path.is_file()


def test_subjects_are_folders(make_dataset):
    root = make_dataset(*THREE)
    (root / "sub-99").touch()
    os.mkfifo(root / "sub-98")
    assert select_subjects(root) == ["01", "02"]


def test_entities_of_derivatives_are_named(make_dataset, caplog):
    scan = find_scans(make_dataset("sub-01/anat/sub-01_space-T1w_desc-x_FLAIR.nii.gz")).scans[0]
    assert scan.notes == (
        f"a raw image has no space- and desc- in its name; if this is not the "
        f"raw one, use --exclude: {scan.relative}",
    )
    assert "a raw image has no space- and desc-" in caplog.text


def test_a_simulated_image_is_called_so(make_dataset):
    root = make_dataset(*THREE)
    sidecar = (root / THREE[2]).with_name("sub-02_FLAIR.json")
    sidecar.write_text(json.dumps({"Manufacturer": "Simulated"}))
    notes = {scan.relative: scan.notes for scan in find_scans(root).scans}
    about = sidecar.relative_to(root).as_posix()
    assert notes.pop(THREE[2]) == (f"a simulated image, no person was scanned: {about}",)
    assert set(notes.values()) == {()}


def test_what_is_named_nearly_as_bids_asks_is_said(make_dataset, caplog):
    root = make_dataset(
        "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
        "sub-01/ses-2/anat/sub-01_ses-2_flair.nii.gz",
        "sub-01/ses-3/anat/sub-01_ses-3_FLAIR.NII.GZ",
        "sub-01/ses-4/anat/sub-01_ses-4_T1w.nii.gz",
        "Sub-03/anat/sub-03_FLAIR.nii.gz",
    )
    latin = bytes(root) + b"/sub-01/ses-1/anat/sub-01_ses-1_acq-Gr\xf6sse_FLAIR.nii.gz"
    Path(os.fsdecode(latin)).write_bytes(b"")
    assert [scan.session for scan in find_scans(root).scans] == ["1"]
    said = "\n".join(caplog.messages)
    assert "sub-01_ses-2_flair.nii.gz, sub-01/ses-3/anat/sub-01_ses-3_FLAIR.NII.GZ" in said
    assert "without a FLAIR that is used (2): sub-01/ses-2/anat, sub-01/ses-4/anat" in said
    assert "a participant's folder, but is not named sub-… (1): Sub-03" in said
    assert "not UTF-8, not used (1): sub-01_ses-1_acq-Gr?sse_FLAIR.nii.gz" in said


def test_participants_asked_for_whom_a_filter_leaves_nothing_are_named(make_dataset, caplog):
    root = make_dataset(
        "sub-01/anat/sub-01_acq-3d_FLAIR.nii.gz", "sub-02/anat/sub-02_acq-2d_FLAIR.nii.gz"
    )
    find_scans(root, participants=["01", "02"], filters={"acquisition": "3d"})
    assert "No FLAIR fits the sessions and filters asked for: sub-02" in caplog.messages


def test_a_filter_of_another_form_is_refused(make_dataset):
    with pytest.raises(UsageError, match="filter file cannot be used"):
        find_scans(make_dataset(*THREE), filters={"acquisition": {"a": 1}})


def test_images_where_bids_has_none_are_named(make_dataset, caplog):
    root = make_dataset(
        "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
        "sub-01/ses-2/sub-01_ses-2_FLAIR.nii.gz",
        "sub-01/session-3/anat/sub-01_ses-3_FLAIR.nii.gz",
        "sub-01/ses-4/Anat/sub-01_ses-4_FLAIR.nii.gz",
        "sub-01/ses-1/anat/FLAIR/series_flair.nii.gz",
        "sub-01/extra/seen_flair.nii.gz",
        "sub-01/fmap/sub-01_acq-FLAIR_TB1map.nii.gz",
        "sub-01/.git/annex/sub-01_FLAIR.nii.gz",
        "masks/sub-01_space-FLAIR_mask.nii.gz",
        "rawdata/sub-11/anat/sub-11_FLAIR.nii.gz",
        "sub_06/anat/sub-06_FLAIR.nii.gz",
        "08/anat/sub-08_FLAIR.nii.gz",
        "derivatives/anat/sub-09_FLAIR.nii.gz",
    )
    (root / "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.img").touch()
    (root / "sub-01/ses-5").symlink_to(root / "not mounted")
    (root / "sub-05").symlink_to(root / "not mounted")
    (root / "sub-01.html").symlink_to(root / "not mounted")
    (root / ".bidsignore").write_text("sub-01/extra/\n")
    assert [scan.session for scan in find_scans(root).scans] == ["1"]
    said = "\n".join(caplog.messages)
    assert "FLAIR in folders where BIDS has none (sub-…/[ses-…/]anat/) (4): " in said
    for place in ("sub-01/ses-2/sub-01_ses-2", "session-3/anat", "ses-4/Anat", "anat/FLAIR/"):
        assert place in said
    assert "sub-01_ses-1_FLAIR.img" in said
    assert "links to what is not there (is the disk mounted?) (2): sub-01/ses-5, sub-05" in said
    assert "a participant's folder, but is not named sub-… (2): 08, sub_06" in said
    assert "extra" not in said


@pytest.mark.parametrize("place", ["dwi", "perf/bids", "func/anat/x"])
def test_a_data_set_below_a_folder_named_like_a_datatype(make_dataset, place):
    root = make_dataset(*THREE)
    moved = root.parent / "below" / place
    moved.parent.mkdir(parents=True)
    root.rename(moved)
    assert len(find_scans(moved).scans) == 3
    assert len(find_scans(moved, filters={"datatype": "anat"}).scans) == 3


@pytest.mark.parametrize("name", ["participants.csv", "participants.tsv.txt", "Participants.TSV"])
def test_a_participants_table_of_another_kind_is_named(make_dataset, caplog, name):
    root = make_dataset("sub-01/anat/sub-01_FLAIR.nii.gz")
    (root / name).touch()
    find_scans(root)
    assert f"have tabs between the columns (1): {name}" in "\n".join(caplog.messages)
    for change in (root / ".bidsignore", root / "participants.tsv"):
        caplog.clear()
        change.write_text(f"{name}\n")
        find_scans(root)
        assert name not in "\n".join(caplog.messages)
        change.unlink()


def test_tables_in_wrong_folders_or_of_other_names_are_named(make_dataset, caplog):
    root = make_dataset("sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz")
    wrong = (
        "ses-1/anat/sub-01_ses-1_scans.tsv", "ses-1/sub-01_sessions.tsv", "ses-1/sub-01_scans.tsv",
        "ses-1/scans.tsv", "sessions.tsv", "ses-1/participants.tsv",
        "sub-01_Sessions.TSV", "sub-01_scans.csv", "sub-01_sessions.tsv.txt",
    )  # fmt: skip
    right = "ses-1/sub-01_ses-1_scans.tsv", "sub-01_scans.tsv", "sub-01_sessions.tsv"
    ignored = (
        "extra/sub-01_scans.tsv", "ses-1/old_sessions.tsv", "._sub-01_scans.tsv",
        "~$sub-01_scans.xlsx", "ses-1/possessions.tsv",
    )  # fmt: skip
    (root / "sub-01/extra").mkdir()
    for table in (*wrong, *right, *ignored):
        (root / "sub-01" / table).touch()
    (root / ".bidsignore").write_text("extra/\nold*\n")
    (root / "sub-01_sessions.tsv").touch()
    find_scans(root)
    [said] = [line for line in caplog.messages if "tables in the wrong folder" in line]
    named = said.rpartition("): ")[2].split(", ")
    assert sorted(named) == sorted(["sub-01_sessions.tsv", *(f"sub-01/{table}" for table in wrong)])


FORMATS = ("nrrd", "mgh", "mgz", "mha", "nii.bz2", "nii.zst", "nii.gz.gz", "nii.xz", "minc", "mnc",
           "zip", "img", "mif.gz")  # fmt: skip


def with_files(root: Path, *names: str) -> Path:
    """Add files that are no images to a data set."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def said_of(messages: list[str], what: str) -> list[str]:
    """Return the names in the one line that says something."""
    [line] = [message for message in messages if what in message]
    return line.rpartition("): ")[2].split(", ")


@pytest.mark.parametrize("ending", FORMATS)
def test_a_flair_in_a_format_that_is_not_read_is_named(make_dataset, caplog, ending):
    name = f"sub-01/ses-9/anat/sub-01_ses-9_FLAIR.{ending}"
    assert relatives(find_scans(with_files(make_dataset(*THREE), name))) == sorted(THREE)
    assert said_of(caplog.messages, "in a format that is not read (convert it") == [name]


def test_what_lies_beside_a_flair_is_not_named(make_dataset, caplog):
    endings = (
        "json",
        "json.bak",
        "bval",
        "hdr",
        "nii.gz.md5",
        "tsv",
        "png",
        "nii.gz~",
        "yaml",
        "tif",
    )
    beside = [f"sub-02/anat/sub-02_FLAIR.{ending}" for ending in endings[1:]]
    hidden = ("sub-02/anat/._sub-02_FLAIR.nrrd", "sub-02/anat/.sub-02_FLAIR.nii.gz.Xa2")
    root = with_files(make_dataset(*THREE), *beside, *hidden)
    (root / "sub-02/anat/sub-02_FLAIR.json").write_text("{}")
    find_scans(root)
    assert caplog.messages == []


def test_a_blank_at_the_end_of_a_name_is_shown(make_dataset, caplog):
    name = "sub-02/anat/sub-02_acq-x_FLAIR.nii.gz "
    assert relatives(find_scans(with_files(make_dataset(*THREE), name))) == sorted(THREE)
    assert said_of(caplog.messages, "the name ends in a blank") == [f"'{name}'"]


def test_a_broken_link_in_the_place_of_the_images_folder_is_named(make_dataset, caplog):
    root = make_dataset(*THREE)
    for person in ("sub-01/ses-3", "sub-03"):
        (root / person).mkdir()
        (root / person / "anat").symlink_to("/nowhere/anat")
    find_scans(root)
    assert said_of(caplog.messages, "links to what") == ["sub-01/ses-3/anat", "sub-03/anat"]


def test_files_in_the_place_of_folders_are_named(make_dataset, caplog):
    root = make_dataset(*THREE)
    (root / "sub-01/ses-3").mkdir()
    for name in ("sub-01/ses-3/anat", "sub-01/ses-4", "sub-09", "sub-08.zip", "sub-01/ses-5.zip"):
        (root / name).touch()
    assert relatives(find_scans(root)) == sorted(THREE)
    named = ["sub-01/ses-4", "sub-01/ses-3/anat", "sub-09"]
    assert said_of(caplog.messages, "files where folders must be") == named


def test_people_within_another_folder_are_named(make_dataset, caplog):
    root = make_dataset(
        *THREE,
        "site1/sub-54/anat/sub-54_FLAIR.nii.gz",
        "ses-1/sub-53/anat/sub-53_ses-1_FLAIR.nii.gz",
        "derivatives/sub-01/anat/sub-01_FLAIR.nii.gz",
        "sourcedata/sub-01/anat/sub-01_FLAIR.nii.gz",
        "freesurfer/sub-01/mri/FLAIR.mgz",
        "old/sub-01/anat/sub-01_FLAIR.nii.gz",
        "fmriprep/sub-01/anat/sub-01_FLAIR.nii.gz",
        "masks/sub-01/anat/sub-01_FLAIR_mask.nii.gz",
    )
    (root / ".bidsignore").write_text("old/\n")
    about = '{"Name": "f", "BIDSVersion": "1.10.0", "DatasetType": "derivative"}'
    (root / "fmriprep/dataset_description.json").write_text(about)
    (root / "latest").symlink_to(".")
    assert relatives(find_scans(root)) == sorted(THREE)
    named = ["ses-1/sub-53", "site1/sub-54"]
    assert said_of(caplog.messages, "participants within another folder") == named


def test_labels_that_differ_in_zeros_or_capitals_alone_are_named(make_dataset, caplog):
    root = make_dataset(
        "sub-01/anat/sub-01_run-1_FLAIR.nii.gz",
        "sub-01/anat/sub-01_run-01_FLAIR.nii.gz",
        "sub-01/anat/sub-01_run-10_FLAIR.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_FLAIR.nii.gz",
        "sub-02/ses-01/anat/sub-02_ses-01_FLAIR.nii.gz",
        "sub-CON1/anat/sub-CON1_FLAIR.nii.gz",
        "sub-con01/ses-1/anat/sub-con01_ses-1_FLAIR.nii.gz",
    )
    scans = find_scans(root).scans
    assert len(scans) == 7
    assert sorted(said_of(caplog.messages, "differ in zeros or capitals alone")) == [
        "sub-01/anat/sub-01_run-01 and sub-01/anat/sub-01_run-1",
        "sub-02/ses-01 and sub-02/ses-1",
        "sub-CON1 and sub-con01",
    ]
    assert [scan.prefix for scan in scans if not scan.notes] == ["sub-01_run-10"]
    assert {len(scan.notes) for scan in scans} == {0, 1}


def test_a_line_break_in_a_name_breaks_no_line(make_dataset, caplog):
    names = ("sub-02/anat/sub-02_acq-a\nb_FLAIR.nii.gz", "sub-02/anat/sub-02_old\r_FLAIR.nii.gz")
    assert names[0] in relatives(find_scans(make_dataset(*THREE, *names)))
    assert r"labels are letters and digits: 'a\nb' (1): sub-02/anat/sub-02_acq-a\nb_" in caplog.text
    assert r"sub-02_old\r_FLAIR.nii.gz: its name is not BIDS" in caplog.text
    assert not any("\n" in message or "\r" in message for message in caplog.messages)
    assert aligned([("scan", "action"), (names[0], "run")])[1].startswith(
        r"sub-02/anat/sub-02_acq-a\nb_"
    )


NOBODY = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user, which only root can be")


def as_nobody(root: Path) -> subprocess.CompletedProcess[str]:
    """Look for the scans of a data set without root's rights; its folder is removed."""
    code = (
        "import json, logging, os, sys; from pathlib import Path;"
        "from msnmo_bids.bids.scans import find_scans; logging.disable();"
        "from msnmo_bids.preprocessing.nifti_file import read_nifti;"
        "find_scans(Path(sys.argv[1])); logging.disable(0); os.setuid(65534);"  # all is imported
        "logging.basicConfig(stream=sys.stderr, level=30); s = find_scans(Path(sys.argv[1]));"
        "print(json.dumps([[x.prefix for x in s.scans], list(s.without_flair)]))"
    )
    try:
        return subprocess.run(
            [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False
        )
    finally:
        shutil.rmtree(root)


def for_all(made: Path) -> Path:
    """Copy a data set to where everybody may look: pytest's own folders are root's alone."""
    root = Path(tempfile.mkdtemp())
    shutil.copytree(made, root, dirs_exist_ok=True)
    root.chmod(0o755)
    return root


@NOBODY
def test_links_into_a_closed_folder_stop_nobody(make_dataset):
    """pybids asks of each file whether it is a folder, which such a link does not let it know."""
    root = for_all(make_dataset(*THREE))
    (root / "closed").mkdir()
    for name in ("sub-03/anat/sub-03_FLAIR.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz",
                 "sub-02/anat/sub-02_FLAIR.json", "participants.tsv"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "closed" / Path(name).name).touch()
        (root / name).symlink_to(root / "closed" / Path(name).name)
    (root / "closed").chmod(0)
    done = as_nobody(root)
    assert done.returncode == 0, done.stderr
    names = [name.split("_")[0] for name in json.loads(done.stdout)[0]]
    assert names == ["sub-01", "sub-01", "sub-02", "sub-03"]
    assert "sub-02_FLAIR.json" in done.stderr


@NOBODY
def test_a_folder_that_may_not_be_read_is_named_and_the_others_go_on(make_dataset):
    """A process without root's rights: each of these folders raises an error where it is asked."""
    made = make_dataset(
        *THREE,
        "sub-03/anat/sub-03_FLAIR.nii.gz",
        "sub-04/ses-1/anat/sub-04_ses-1_FLAIR.nii.gz",
        "sub-04/ses-2/anat/sub-04_ses-2_FLAIR.nii.gz",
        "sub-05/anat/sub-05_FLAIR.nii.gz",
    )
    root = for_all(made)
    for place, mode in (("sub-02", 0), ("sub-03", 0o744), ("sub-04/ses-2", 0), ("sub-05/anat", 0)):
        (root / place).chmod(mode)
    done = as_nobody(root)
    assert done.returncode == 0, done.stderr
    scans, without = json.loads(done.stdout)
    assert [name.split("_")[0] for name in scans] == ["sub-01", "sub-01", "sub-04"]
    assert without == ["05"]
    closed = "sub-02, sub-03, sub-04/ses-2, sub-05/anat"
    assert f"folders that cannot be read (check their permissions) (4): {closed}" in done.stderr
