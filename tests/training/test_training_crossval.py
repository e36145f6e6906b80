"""From a site's scans to a page: folds, networks, tests, weights."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from site_data import Site, brain, lesions

from msnmo_bids.cli import crossval as crossval_command
from msnmo_bids.cli import train as train_command
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.evaluation.crossval_results import scan_columns
from msnmo_bids.evaluation.metrics import compare_masks
from msnmo_bids.labelled.scans import find_labelled_scans
from msnmo_bids.lesions.descriptors import DESCRIPTORS
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions
from msnmo_bids.model import registry
from msnmo_bids.model.calibration import Calibration
from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.inference import classify_lesions, predict
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.segmentation import JointOutput
from msnmo_bids.model.weights import WeightsMetadata, find_weights, read_metadata, save_weights
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.training.crossval import (
    choose_examples,
    evaluate_scan,
    rule_row,
    usable,
    write_example,
)
from msnmo_bids.training.fitting import calibrate
from msnmo_bids.training.folds import split_validation
from msnmo_bids.training.prepared import prepare_scans

CLASSES = ("MS", "NMOSD")
CRITERIA = LesionCriteria()
SETTINGS = ProcessingSettings(skull_strip="skip", bias_correction="skip", sloppy=True)
QUICK = ["--cube-side", "32", "--width", "0.125", "--steps", "2", "--steps-per-epoch", "1",
         "--skull-strip", "skip", "--bias-correction", "skip", "--nprocs", "1"]  # fmt: skip


@pytest.fixture
def site(tmp_path) -> Site:
    """Eight people, the lesions of NMOSD on the other side."""
    site = Site(tmp_path / "site")
    for number in range(8):
        diagnosis = CLASSES[number % 2]
        data = brain(number)[:: 1 - 2 * (number % 2)].copy()
        site.add(f"{number:02}", diagnosis, data=data, site=f"centre {number // 4}")
        truth = lesions()[:: 1 - 2 * (number % 2)].copy()
        site.mask(f"sub-{number:02}/", f"sub-{number:02}_label-L_desc-manual_mask", truth)
    return site


@pytest.fixture
def prepared(site, tmp_path):
    found = find_labelled_scans([site.root], classes=CLASSES)
    scans, _ = prepare_scans(
        found, cache_dir=tmp_path / "cache", work_dir=tmp_path / "work", settings=SETTINGS,
        cube_shape=(32, 32, 32), plugin="Linear",
    )  # fmt: skip
    return scans


class Oracle(torch.nn.Module):
    """A network that knows the answer."""

    tasks = ("segmentation", "classification")

    def __init__(self, lesions: np.ndarray, logits: tuple[float, float]) -> None:
        super().__init__()
        self.lesions, self.logits = torch.from_numpy(lesions).float(), logits

    def forward(self, image, tasks=None) -> JointOutput:
        return JointOutput(
            lesion_logits=20 * self.lesions[None, None] - 10,
            class_logits=torch.tensor([self.logits]),
        )


def test_scores_of_a_network_that_knows_the_answer(prepared):
    scan = prepared[1]
    truth = scan.load(CLASSES).lesions
    oracle = Oracle(truth, (0.0, np.log(3.0)))
    result = evaluate_scan(oracle, scan, CLASSES, CRITERIA, with_volumes=True)
    assert result.row["prob_MS"] == pytest.approx(0.25)
    assert result.row["prob_NMOSD"] == pytest.approx(0.75)
    scores = compare_masks(scan.native_mask(), result.labels, scan.grid().zooms)
    assert {k: result.row[k] for k in ("dsc", "hd95")} == {k: scores[k] for k in ("dsc", "hd95")}
    assert result.row["dsc"] > 0.95
    assert (result.row["participant_id"], result.row["site"]) == ("sub-01", "centre 0")
    assert set(result.row) <= set(scan_columns(CLASSES))
    assert np.array_equal(result.volumes["prediction"], truth)


def test_scores_follow_threshold_and_smallest_lesion(prepared):
    scan = prepared[0]
    truth = scan.load(CLASSES).lesions
    network = Oracle(truth, (1.0, 0.0))
    result = evaluate_scan(network, scan, CLASSES, CRITERIA)
    assert result.labels.max() == 2
    assert result.volumes == {}  # a fold tests many scans: only those for figures keep them
    drops = LesionCriteria(min_volume=7000.0)  # 12 and 16 voxels of 343 mm³
    assert evaluate_scan(network, scan, CLASSES, drops).labels.max() == 0


@pytest.mark.parametrize(("value", "marked"), [(0.5998, False), (0.59999, True)])
def test_lesions_are_those_that_the_app_would_write(prepared, value, marked):
    """The app rounds to 1 / 4096 before it compares with the threshold."""
    scan = prepared[0]
    grid, truth = scan.grid(), scan.load(CLASSES).lesions
    probability = np.where(truth > 0, np.float32(value), np.float32(0.1))
    criteria = LesionCriteria(0.6, 0.0)
    network = Oracle(truth, (1.0, 0.0))
    network.lesions = (torch.from_numpy(probability).logit() + 10) / 20
    labels = evaluate_scan(network, scan, CLASSES, criteria).labels
    assert labels.any() == marked
    native = grid.to_native(probability)
    np.testing.assert_array_equal(labels, find_lesions(native, grid.voxel_volume, criteria).labels)


def test_rule_needs_lesions_and_gives_certainty(prepared):
    scan = prepared[0]
    oracle = Oracle(scan.load(CLASSES).lesions * 0, (1.0, 0.0))
    result = evaluate_scan(oracle, scan, CLASSES, CRITERIA)
    row = rule_row(result, CLASSES)
    assert (row["prob_MS"], row["prob_NMOSD"]) == (0.0, 1.0)  # without lesions no sign of MS


def test_examples_take_the_diagnoses_in_turn(prepared, tmp_path):
    chosen = choose_examples(prepared, CLASSES)
    assert sorted(scan.name for scan in chosen) == [f"site/sub-0{number}" for number in range(4)]
    network = Oracle(chosen[0].load(CLASSES).lesions, (1.0, 0.0))
    tested = evaluate_scan(network, chosen[0], CLASSES, CRITERIA, with_volumes=True)
    write_example(tested, tmp_path)
    [kept] = (tmp_path / "examples").iterdir()
    assert kept.stem == chosen[0].name.replace("/", "_")
    with np.load(kept) as stored:
        assert set(stored.files) == {"image", "truth", "prediction", "zooms"}


def test_only_scans_that_train_something_are_used(prepared):
    blind = [replace_labels(scan, mask=None) for scan in prepared[:2]]
    nameless = [replace_labels(scan, diagnosis=None) for scan in prepared[2:4]]
    scans = [*blind, *nameless]
    assert usable(scans, ("segmentation",)) == nameless
    assert usable(scans, ("classification",)) == blind
    assert usable(scans, ("segmentation", "classification")) == scans


def replace_labels(scan, **labels):
    from dataclasses import replace

    return replace(scan, labelled=replace(scan.labelled, **labels))


def test_people_set_aside_are_not_trained_on(prepared):
    training, validation = split_validation(prepared, 0.25, seed=1)
    assert {scan.person for scan in training}.isdisjoint(scan.person for scan in validation)
    assert len(training) + len(validation) == len(prepared)
    assert {scan.labelled.diagnosis for scan in validation} == set(CLASSES)
    assert split_validation(prepared, 0.0, seed=1) == (prepared, [])


def test_no_temperature_from_too_few_scans(prepared):
    network = registry.entry("joint").build(width=0.125).eval()
    assert calibrate(network, prepared).method == "none"
    assert calibrate(network, [*prepared, *prepared]).method == "temperature scaling"


def test_crossval_from_scans_to_page(site, tmp_path):
    """Three networks, two folds; a second run does nothing, a deleted fold is done again."""
    out = tmp_path / "out"
    command = [str(site.root), str(out), "--models", "joint", "unet", "resnet50", "--folds", "2",
               "-w", str(tmp_path / "work"), *QUICK]  # fmt: skip
    assert crossval_command.main([*command, "--fold", "1"]) == ExitCode.OK
    assert not (out / "crossval.html").exists()
    assert crossval_command.main(command) == ExitCode.OK
    models = {path.name for path in (out / "models").iterdir()}
    assert models == {"joint", "unet", "resnet50", "rule"}
    for model in models:
        rows = []
        for fold in ("fold-1", "fold-2"):
            rows += list(
                csv.DictReader((out / "models" / model / fold / "scans.tsv").open(), delimiter="\t")
            )
        assert sorted(row["participant_id"] for row in rows) == [f"sub-0{k}" for k in range(8)]
        segments, classifies = (rows[0][name] != "n/a" for name in ("dsc", "prob_MS"))
        assert segments == (model in ("joint", "unet"))
        assert classifies == (model != "unet")
    weights = out / "models" / "joint" / "fold-1" / "weights.safetensors"
    assert read_metadata(weights).cube_shape == (32, 32, 32)
    scores = predict(np.zeros((32, 32, 32), np.float32), weights).class_probabilities
    assert scores.sum() == pytest.approx(1)
    assert not list(out.glob("models/unet/*/weights.safetensors"))
    assert not list(out.rglob("checkpoint.pt"))
    page = (out / "crossval.html").read_text()
    assert "not a medical device" in page
    assert "ResNet50" in page
    for table in range(3, 10):
        assert (out / "tables" / f"table-{table}.tsv").is_file()
    done = {path: path.stat().st_mtime_ns for path in out.glob("models/*/*/scans.tsv")}
    again = out / "models" / "unet" / "fold-2" / "scans.tsv"
    again.unlink()
    assert crossval_command.main(command) == ExitCode.OK
    assert {path for path, then in done.items() if path.stat().st_mtime_ns != then} == {again}
    assert crossval_command.main([*command, "--threshold", "0.2"]) == ExitCode.USAGE
    assert crossval_command.main([*command, "--learning-rate", "0.01"]) == ExitCode.USAGE
    log = (out / "msnmo-crossval.log").read_text()
    assert "fold-1: this fold is complete, but was made otherwise: threshold was 0.5 and is" in log
    assert "was made otherwise: learning_rate was 0.0001 and is 0.01" in log
    site.mask("sub-00/", "sub-00_label-L_desc-manual_mask", lesions()[:, ::-1].copy())
    assert crossval_command.main(command) == ExitCode.USAGE
    record = out / "models" / "joint" / "fold-1" / "fold.json"
    record.write_text(record.read_text().replace('"threshold": 0.5', '"threshold": 0.2'))
    assert crossval_command.main([*command, "--collect"]) == ExitCode.OK
    assert "were not made alike, as " in (out / "crossval.html").read_text()
    assert "data (images, masks, diagnoses) was" in (out / "msnmo-crossval.log").read_text()


def test_crossval_of_three_classes(tmp_path):
    """With healthy controls as the last class: the positive diagnosis is still NMOSD."""
    site = Site(tmp_path / "site")
    for number in range(6):
        site.add(f"{number:02}", ("MS", "NMOSD", "HC")[number % 3], data=brain(number))
    out = tmp_path / "out"
    command = [str(site.root), str(out), "--models", "joint", "--folds", "2", "--classes", "MS",
               "NMOSD", "HC", "-w", str(tmp_path / "work"), *QUICK]  # fmt: skip
    assert crossval_command.main(command) == ExitCode.OK
    rows = []
    for fold in ("fold-1", "fold-2"):
        table = (out / "models" / "joint" / fold / "scans.tsv").open()
        rows += list(csv.DictReader(table, delimiter="\t"))
        weights = out / "models" / "joint" / fold / "weights.safetensors"
        assert read_metadata(weights).class_names == ("MS", "NMOSD", "HC")
    assert [row["diagnosis"] for row in rows].count("HC") == 2
    for row in rows:
        assert sum(float(row[f"prob_{name}"]) for name in ("MS", "NMOSD", "HC")) == pytest.approx(1)
    assert not (out / "models" / "rule").exists()  # which knows MS and NMOSD only
    assert "NMOSD against the rest" in (out / "crossval.html").read_text()


def test_crossval_goes_on_when_one_network_cannot_be_trained(site, tmp_path, monkeypatch):
    from msnmo_bids.training import crossval

    original = crossval.fit

    def failing(network, *arguments, **keywords):
        if network.tasks == ("classification",):
            raise MsnmoError("memory does not suffice")
        return original(network, *arguments, **keywords)

    monkeypatch.setattr(crossval, "fit", failing)
    out = tmp_path / "out"
    code = crossval_command.main(
        [str(site.root), str(out), "--models", "resnet50", "unet", "--folds", "2",
         "-w", str(tmp_path / "work"), *QUICK]
    )  # fmt: skip
    assert code == ExitCode.FAILURE
    assert len(list(out.glob("models/unet/*/scans.tsv"))) == 2
    assert "memory does not suffice" in (out / "msnmo-crossval.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--models", "alexnet"], ExitCode.USAGE),
        (["--folds", "2", "--fold", "3"], ExitCode.USAGE),
        (["--positive", "ADEM"], ExitCode.USAGE),
        (["--folds", "2", "--fold", "1", "--collect"], ExitCode.USAGE),
        (["--classes", "MS", "MS"], ExitCode.USAGE),
        (["--simulated-share", "0.5", "--classes", "MS", "HC"], ExitCode.USAGE),
        (["--use-plugin", "missing.yml"], ExitCode.USAGE),
        (["--cube-side", "40"], ExitCode.USAGE),
        (["--learning-rate", "fast"], ExitCode.USAGE),
        (["--patience", "-1"], ExitCode.USAGE),
    ],
)
def test_wrong_usage_is_told_before_any_work(site, tmp_path, arguments, code):
    assert crossval_command.main([str(site.root), str(tmp_path / "out"), *arguments]) == code
    assert not list((tmp_path / "out").glob("**/*.npz"))


def test_one_class_is_refused_by_the_training_too(site, tmp_path):
    command = [str(site.root), str(tmp_path / "out"), "--classes", "MS", *QUICK]
    assert train_command.main(command) == ExitCode.USAGE


def test_weights_to_start_from_are_read_before_any_work(site, tmp_path):
    out = tmp_path / "out"
    command = [str(site.root), str(out), "--initial-weights", str(tmp_path / "none.safetensors")]
    assert train_command.main([*command, *QUICK]) == ExitCode.INPUT_MISSING
    assert not list(out.glob("**/*.npz"))


def test_training_gives_weights_that_the_app_reads(site, tmp_path):
    out = tmp_path / "out"
    command = [str(site.root), str(out), "-w", str(tmp_path / "work"), *QUICK]
    assert train_command.main(command) == ExitCode.OK
    weights = out / "msnmo-joint.safetensors"
    metadata = read_metadata(weights)
    assert metadata.trained_on == ("site: 6 scans",)
    assert predict(np.zeros((32, 32, 32), np.float32), weights).probability.shape == (32,) * 3
    rows = list(csv.DictReader((out / "validation" / "scans.tsv").open(), delimiter="\t"))
    assert {row["diagnosis"] for row in rows} == set(CLASSES)
    assert (out / "training" / "curves.png").is_file()
    data, participants = weights.read_bytes(), (site.root / "participants.tsv")
    before = participants.read_text()
    participants.write_text(before.replace("\tMS\t", "\tNMOSD\t", 1))
    assert train_command.main(command) == ExitCode.USAGE
    assert weights.read_bytes() == data
    assert "data (images, masks, diagnoses) was" in (out / "msnmo-train.log").read_text()
    participants.write_text(before)
    again = [str(site.root), str(tmp_path / "more"), "-w", str(tmp_path / "work"),
             "--initial-weights", str(weights), "--learning-rate", "1e-9",
             *(a for a in QUICK if a not in ("--width", "0.125"))]  # fmt: skip
    assert train_command.main(again) == ExitCode.OK
    cube = np.random.default_rng(0).normal(size=(32, 32, 32)).astype(np.float32)
    first, second = (
        predict(cube, file) for file in (weights, tmp_path / "more" / "msnmo-joint.safetensors")
    )
    assert np.allclose(first.probability, second.probability, atol=1e-4)
    check_that_a_branch_goes_through_a_training_as_it_is(site, tmp_path)


def test_initial_weights_bring_their_network(site, tmp_path):
    command = [str(site.root), str(tmp_path / "out"), "-w", str(tmp_path / "work"),
               "--initial-weights", "shipped", *QUICK]  # fmt: skip
    assert train_command.main(command) == ExitCode.USAGE
    assert "--width" in (tmp_path / "out" / "msnmo-train.log").read_text()


def check_that_a_branch_goes_through_a_training_as_it_is(site, tmp_path):
    """What classifies lesions is not trained; scans are prepared already."""
    torch.manual_seed(0)
    config = JointConfig(
        tasks=("segmentation",), classes=(*CLASSES, "SVD"), lesion_descriptors=len(DESCRIPTORS)
    ).scaled(0.125)
    described = WeightsMetadata(
        "start", "1", class_names=config.classes, cube_shape=(32, 32, 32),
        calibration=Calibration(2.0, "test", "test"), naming_limits={"MS": 0.9},
        lesion_descriptors=tuple(DESCRIPTORS),
    )  # fmt: skip
    start = tmp_path / "start.safetensors"
    save_weights(start, JointNetwork(config), described)
    command = [str(site.root), str(tmp_path / "branch"), "-w", str(tmp_path / "work"),
               "--initial-weights", str(start), "--learning-rate", "1e-2",
               *(a for a in QUICK if a not in ("--width", "0.125"))]  # fmt: skip
    assert train_command.main(command) == ExitCode.OK
    trained = tmp_path / "branch" / "msnmo-joint.safetensors"
    _, metadata = find_weights(trained)
    for name in ("calibration", "naming_limits", "lesion_descriptors", "class_names"):
        assert getattr(metadata, name) == getattr(described, name)
    rows = np.random.default_rng(0).normal(size=(3, len(DESCRIPTORS))).astype(np.float32)
    before, after = (classify_lesions(rows, file) for file in (start, trained))
    np.testing.assert_allclose(before.class_logits, after.class_logits, atol=1e-5)
    cube = np.random.default_rng(1).normal(size=(32, 32, 32)).astype(np.float32)
    assert not np.allclose(
        predict(cube, start).probability, predict(cube, trained).probability, atol=1e-4
    )
