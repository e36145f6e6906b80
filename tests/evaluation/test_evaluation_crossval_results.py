"""Reading a cross-validation, and the measures of its models."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from msnmo_bids.errors import MsnmoError
from msnmo_bids.evaluation.crossval_results import (
    CrossValidation,
    ModelResults,
    read_crossval,
    read_curves,
)
from msnmo_bids.evaluation.measures import Measure, compare, guesses, site_rows, summarise
from msnmo_bids.evaluation.metrics import (
    CLASS_METRICS,
    MASK_METRICS,
    METRICS,
    POOLED,
    VOLUMES,
    calibration_error,
    compare_masks,
)

CLASSES = ("MS", "NMOSD")


def read(out: Path):
    return read_crossval(out, classes=CLASSES, positive="NMOSD")


@pytest.fixture(scope="module")
def original(make_crossval, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("crossval")
    return make_crossval(folder, models=("joint", "unet", "resnet50"))


@pytest.fixture
def out(original, tmp_path) -> Path:
    """A copy, to be spoilt."""
    return shutil.copytree(original, tmp_path / "out", ignore=shutil.ignore_patterns("*.npz"))


def summary(out: Path, model: str) -> dict[str, Measure]:
    return summarise(read(out), model)


def edit(file: Path, change) -> None:
    table = change(pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False))
    table.to_csv(file, sep="\t", index=False)


def table_of(out: Path, model: str = "joint", fold: int = 0) -> Path:
    return out / "models" / model / f"fold-{fold}" / "scans.tsv"


def test_a_complete_one(out):
    found = read(out)
    assert list(found.models) == ["joint", "resnet50", "unet"]
    assert found.folds == ["0", "1"]
    joint = found.models["joint"]
    assert joint.gap == ""
    assert len(joint.scans) == 22  # 16 subjects, 6 of them with two scans


def test_measures_are_the_means_of_the_tables(out):
    measures = summary(out, "joint")
    assert tuple(measures) == METRICS
    folds = [pd.read_csv(table_of(out, fold=k), sep="\t", na_values="n/a") for k in range(2)]
    whole = pd.concat(folds)
    dsc = measures["dsc"]
    assert dsc.value == pytest.approx(whole["dsc"].mean())
    assert dsc.folds == pytest.approx(np.mean([fold["dsc"].mean() for fold in folds]))
    assert dsc.interval.low < dsc.value < dsc.interval.high
    assert (dsc.scans, dsc.subjects) == (22, 16)
    right = (whole["prob_NMOSD"] > 0.5) == (whole["diagnosis"] == "NMOSD")
    assert measures["acc"].value == pytest.approx(right.mean())
    nmosd = whole["diagnosis"] == "NMOSD"
    assert measures["sn"].value == pytest.approx(right[nmosd].mean())
    assert measures["sn"].scans == nmosd.sum()
    assert measures["sp"].value == pytest.approx(right[~nmosd].mean())
    assert measures["brier"].value == pytest.approx(((whole["prob_NMOSD"] - nmosd) ** 2).mean())
    assert measures["auc"].interval.low <= measures["auc"].value <= measures["auc"].interval.high
    assert measures["ece"].interval.low is None


def test_a_task_that_a_model_lacks_has_no_measure(out):
    measures = summary(out, "unet")
    assert measures["auc"].value is None
    assert measures["auc"].scans == 0
    assert measures["dsc"].value is not None


def test_a_missing_fold_leaves_no_mean_of_folds(out):
    table_of(out, fold=1).unlink()
    model = read(out).models["joint"]
    assert model.gap == "fold 1 missing"
    measures = summary(out, "joint")
    assert measures["dsc"].folds is None
    assert measures["dsc"].reason == "fold 1 missing"
    assert measures["dsc"].value is not None


def test_a_missing_subject_is_named(out):
    edit(table_of(out), lambda t: t[t["participant_id"] != "sub-01"])
    model = read(out).models["joint"]
    assert model.gap == "1 subjects without a scan (demo/sub-01)"
    assert summary(out, "joint")["dsc"].folds is None


def test_a_fold_without_the_positive_class_has_no_mean_of_folds(out):
    for fold in range(2):
        edit(
            table_of(out, fold=fold),
            lambda t, fold=fold: t.assign(diagnosis="MS") if fold else t,
        )
    measures = summary(out, "joint")
    assert measures["auc"].reason == "no value in fold 1"
    assert measures["acc"].folds is not None


def test_models_are_compared_on_the_scans_that_both_have(out):
    edit(table_of(out, "unet"), lambda t: t[t["participant_id"] != "sub-00"])
    test = compare(read(out), "joint", "unet", metric="dsc")
    assert test.subjects == 15
    assert test.difference > 0
    assert 0 < test.p < 1
    assert compare(read(out), "joint", "resnet50", metric="auc").p is not None


def _twice(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.iloc[:1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_twice, "tested twice"),
        (lambda t: t.drop(columns=["dsc", "prob_MS"]), "columns are missing: dsc, prob_MS"),
        (lambda t: t.assign(dsc="high"), "dsc: Unable to parse string 'high'"),
        (lambda t: t.assign(participant_id="sub-99"), "planned is none"),
        (lambda t: t.assign(participant_id="sub-02"), "tested in fold 0, planned is 1"),
    ],
)
def test_ill_tables_are_named(out, change, message):
    edit(table_of(out), change)
    with pytest.raises(MsnmoError, match=message) as raised:
        read(out)
    assert "joint" in str(raised.value)


def test_nothing_to_read(tmp_path, out):
    with pytest.raises(MsnmoError, match=r"folds.tsv: the file is missing"):
        read(tmp_path / "nowhere")
    for file in out.glob("models/*/fold-*/scans.tsv"):
        file.unlink()
    with pytest.raises(MsnmoError, match="Run the cross-validation first"):
        read(out)


def test_pooled_scans_are_one_scan(out):
    rng = np.random.default_rng(0)
    pairs = rng.random((4, 2, 6, 5, 4)) < np.array([0.3, 0.2, 0.1, 0])[:, None, None, None, None]
    scans = pd.DataFrame([compare_masks(*pair, (1, 1, 2)) for pair in pairs])
    whole = compare_masks(*np.concatenate(pairs, axis=1), (1, 1, 2))
    found = read(out)
    joint = found.models["joint"].scans.iloc[:4].copy()
    joint[["dsc", *VOLUMES]] = scans[["dsc", *VOLUMES]].to_numpy(float)
    models = {"joint": ModelResults("joint", joint)}
    measures = summarise(replace(found, models=models), "joint")
    for name in POOLED:
        assert measures[name].value == pytest.approx(whole[name.removeprefix("pooled_")])


def measures_of(
    diagnoses: list[str], probabilities: list[list[float]], classes: tuple[str, ...], positive: str
) -> dict[str, float | None]:
    """Measure a classifier's scores, each of another person, in one fold."""
    people = [f"sub-{number}" for number in range(len(diagnoses))]
    columns = ["dsc", *VOLUMES, *MASK_METRICS[1:]]
    scans = pd.DataFrame({"subject": people, "diagnosis": diagnoses, "fold": "1"}, people)
    scans = scans.assign(**dict.fromkeys(columns, np.nan))
    for name, column in zip(classes, np.reshape(probabilities, (-1, len(classes))).T, strict=True):
        scans[f"prob_{name}"] = column
    models = {"joint": ModelResults("joint", scans)}
    found = CrossValidation(scans, classes, positive, models)
    return {name: own.value for name, own in summarise(found, "joint").items()}


TWO = ["NMOSD", "MS", "NMOSD", "MS", "MS"]


def test_class_metrics_are_those_of_scikit_learn():
    scores = np.array([0.9, 0.6, 0.55, 0.2, 0.1])
    rows = np.column_stack([1 - scores, scores]).tolist()
    one, other = (measures_of(TWO, rows, CLASSES, positive) for positive in ("NMOSD", "MS"))
    labels = np.array(TWO) == "NMOSD"
    assert one["acc"] == pytest.approx(4 / 5)
    assert one["sn"] == 1
    assert one["sp"] == pytest.approx(2 / 3)
    assert one["auc"] == pytest.approx(roc_auc_score(labels, scores))
    assert one["brier"] == pytest.approx(brier_score_loss(labels, scores))
    assert one["ece"] == pytest.approx(calibration_error(labels, scores))
    assert (other["sn"], other["sp"]) == (one["sp"], one["sn"])
    for name in ("acc", "auc", "brier"):
        assert other[name] == pytest.approx(one[name])


def test_three_classes():
    """ACC over all classes, the rest one class against the others."""
    classes, diagnoses = ("MS", "NMOSD", "HC"), ["MS", "NMOSD", "HC", "HC"]
    rows = [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0, 0.1, 0.9]]
    measures = measures_of(diagnoses, rows, classes, "NMOSD")
    assert measures["acc"] == pytest.approx(3 / 4)
    assert measures["sn"] == measures["sp"] == measures["auc"] == 1
    assert measures_of(diagnoses, rows, classes, "HC")["sn"] == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("diagnoses", "missing"),
    [
        (["NMOSD", "NMOSD"], {"sp", "auc"}),
        (["MS", "MS"], {"sn", "auc"}),
        ([], set(CLASS_METRICS)),
        (["HC", "n/a"], set(CLASS_METRICS)),
    ],
)
def test_what_has_no_value(diagnoses, missing):
    measures = measures_of(diagnoses, [[0.3, 0.7]] * len(diagnoses), CLASSES, "NMOSD")
    assert {name for name in CLASS_METRICS if measures[name] is None} == missing


def test_site_beside_diagnosis(out):
    rows = site_rows(read(out))
    assert sum(row["subjects"] for row in rows) == 16
    assert sum(row["scans"] for row in rows) == 22
    assert {row["site"] for row in rows} == {"Ulm", "MS centre", "NMOSD centre"}
    assert all(0 <= row["acc"] <= 1 for row in rows)
    # 12 of 16 are from a centre of one diagnosis; in Ulm either is as frequent.
    assert guesses(read(out)) == (14 / 16, 8 / 16)


def test_rows_of_the_curves_that_were_cut_or_damaged_are_left_out(tmp_path):
    file = tmp_path / "curves.csv"
    file.write_text("step,total\n1,0.5\n2,half\n3,\n4,0.25,7\n5,0.")
    assert read_curves(file) == [{"step": 1, "total": 0.5}, {"step": 3}]
