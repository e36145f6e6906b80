"""Reading a cross-validation, and the measures of its models."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from msnmo_bids.errors import MsnmoError
from msnmo_bids.evaluation.crossval import read_crossval
from msnmo_bids.evaluation.summary import METRICS, Measure, compare, guesses, site_rows, summarise

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
    return summarise(read(out), model, draws=200, seed=0)


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
    assert joint.complete
    assert len(joint.scans) == 22  # 16 subjects, 6 of them with two scans
    assert joint.segments
    assert joint.classifies(CLASSES)
    assert not found.models["unet"].classifies(CLASSES)
    assert not found.models["resnet50"].segments


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
    assert model.missing_folds == ("1",)
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


def test_a_positive_class_that_is_none(out):
    with pytest.raises(MsnmoError, match="positive class MOGAD is none of MS, NMOSD"):
        read_crossval(out, classes=CLASSES, positive="MOGAD")


def test_site_beside_diagnosis(out):
    rows = site_rows(read(out))
    assert sum(row["subjects"] for row in rows) == 16
    assert sum(row["scans"] for row in rows) == 22
    assert {row["site"] for row in rows} == {"Ulm", "MS centre", "NMOSD centre"}
    assert all(0 <= row["acc"] <= 1 for row in rows)
    # 12 of 16 are from a centre of one diagnosis; in Ulm either is as frequent.
    assert guesses(read(out)) == (14 / 16, 8 / 16)
