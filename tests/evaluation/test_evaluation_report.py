"""Tables, figures and the page of a cross-validation."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from msnmo_bids.errors import MsnmoError
from msnmo_bids.evaluation.crossval_results import read_crossval, read_examples
from msnmo_bids.evaluation.figures import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    TRUE_POSITIVE,
    overlay_figure,
)
from msnmo_bids.evaluation.report import write_evaluation
from msnmo_bids.model import registry

NOTE = "All scans are <random> numbers."


@pytest.fixture(scope="module")
def out(make_crossval, tmp_path_factory) -> Path:
    """A whole evaluation; the UNet lacks a fold."""
    folder = make_crossval(tmp_path_factory.mktemp("crossval"))
    (folder / "models" / "unet" / "fold-1" / "scans.tsv").unlink()
    write_evaluation(folder, classes=("MS", "NMOSD"), positive="NMOSD", notes=[NOTE])
    return folder


def rows(out: Path, name: str) -> dict[str, dict[str, str]]:
    with (out / "tables" / f"{name}.tsv").open() as stream:
        return {row["model"]: row for row in csv.DictReader(stream, delimiter="\t")}


def test_each_table_has_its_models(out):
    names = [*(f"table-{k}" for k in range(3, 10)), "segmentation", "classification"]
    expected = {f"{name}.tsv" for name in names} | {"sites.tsv"}
    assert {file.name for file in (out / "tables").iterdir()} == expected
    for number in range(3, 10):
        models = list(rows(out, f"table-{number}"))
        assert set(models) - {"rule"} == set(registry.names(number))
        assert models[-1] == "joint"
        assert ("rule" in models) == (number == 4)
    assert list(rows(out, "classification")) == ["joint", "only_classification", "resnet50", "rule"]


def test_numbers_of_the_tables(out):
    joint = rows(out, "table-3")["joint"]
    assert float(joint["dsc_low"]) < float(joint["dsc"]) < float(joint["dsc_high"])
    assert float(joint["dsc_mean_of_folds"]) == pytest.approx(float(joint["dsc"]), abs=0.05)
    assert joint["dsc_p"] == "n/a"
    only = rows(out, "table-5")["only_segmentation"]
    assert float(only["dsc_difference"]) > 0
    assert float(only["dsc_p"]) <= float(only["dsc_p_holm"]) <= 1


def test_what_was_not_run_or_is_incomplete_says_so(out):
    found = rows(out, "table-3")
    assert found["vnet"]["missing"] == "not run"
    assert found["vnet"]["dsc"] == "n/a"
    assert found["unet"]["dsc_mean_of_folds"] == "n/a"
    assert found["unet"]["dsc_reason"] == "fold 1 missing"
    assert found["unet"]["dsc"] != "n/a"
    assert "† 3D UNet: fold 1 missing." in (out / "crossval.html").read_text()


def test_figures(out):
    names = {file.name for file in (out / "figures").iterdir()}
    assert names == {
        "figure-8_overlay.png", "figure-9_roc.png", "figure-10_overlay.png", "figure-11_roc.png",
        "figure-12_cam.png", "calibration.png",
    }  # fmt: skip
    for name in names:
        picture = Image.open(out / "figures" / name).convert("RGB")
        assert min(picture.size) > 300
        assert len(picture.getcolors(maxcolors=10**7)) > 20


def test_overlays_show_right_false_and_missed_voxels(out, tmp_path):
    found = read_crossval(out, classes=("MS", "NMOSD"), positive="NMOSD")
    examples = [e for e in read_examples(found) if "joint" in e.predictions][:1]
    example = examples[0]

    def colours() -> set[str]:
        file = overlay_figure(examples, ["joint"], tmp_path / "overlay.png")
        picture = np.asarray(Image.open(file).convert("RGB")).astype(int)
        picture = picture[: int(0.9 * len(picture)), picture.shape[1] * 2 // 3 :]  # no legend
        shown = set()
        for colour in (TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE):
            # Laid over grey with an opacity of 0.85.
            distance = np.abs(picture - 0.85 * 255 * np.array(to_rgb(colour)) - 19).max(axis=-1)
            if (distance < 30).sum() > 30:
                shown.add(colour)
        return shown

    example.predictions["joint"] = example.truth.copy()
    assert colours() == {TRUE_POSITIVE}
    example.predictions["joint"] = np.zeros_like(example.truth)
    assert colours() == {FALSE_NEGATIVE}
    shifted = np.roll(example.truth, 12, axis=1) & example.brain & ~example.truth
    example.predictions["joint"] = shifted | example.truth
    assert colours() == {TRUE_POSITIVE, FALSE_POSITIVE}


def test_examples_know_their_diagnosis_and_background(out):
    found = read_crossval(out, classes=("MS", "NMOSD"), positive="NMOSD")
    examples = read_examples(found)
    assert {example.diagnosis for example in examples[:2]} == {"MS", "NMOSD"}
    for example in examples:
        number = int(example.name.removeprefix("demo_sub-")[:2])
        assert example.diagnosis == ("MS", "NMOSD")[number % 2]
        assert example.image.data[~example.brain].max() <= example.image.data.min()
        assert example.image.zooms == (4, 4, 4)


class Links(HTMLParser):
    """Collects what a page asks for, and its anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.linked: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        self.asked += [known["src"]] if "src" in known else []
        self.linked += [known["href"]] if "href" in known else []
        self.anchors |= {known["id"]} if "id" in known else set()


def test_the_page(out):
    text = (out / "crossval.html").read_text()
    assert "Research use only" in text
    assert "not a medical device" in text
    assert "All scans are &lt;random&gt; numbers." in text
    assert "Fold 1 missing" in text
    assert "87.5 % of the subjects" in text
    page = Links()
    page.feed(text)
    assert len(page.asked) == 6
    assert all(source.startswith("data:image/png;base64,") for source in page.asked)
    for link in page.linked:
        assert link[1:] in page.anchors if link.startswith("#") else (out / link).is_file()


def test_the_same_input_gives_the_same_files(make_crossval, tmp_path):
    make_crossval(tmp_path, subjects=8, models=("only_classification",))
    written = []
    for _ in range(2):
        page = write_evaluation(tmp_path, classes=("MS", "NMOSD"), positive="NMOSD", notes=[NOTE])
        files = [page, *tmp_path.glob("tables/*"), *tmp_path.glob("figures/*")]
        written.append({file: file.read_bytes() for file in files})
        for file in files:
            file.unlink()
    assert len(written[0]) > 10
    assert written[0] == written[1]


def test_few_scans_of_three_classes_without_joint_model(make_crossval, tmp_path):
    """Neither interval nor test, but no crash."""
    classes = ("MS", "NMOSD", "HC")
    make_crossval(tmp_path, subjects=4, folds=2, models=("resnet50", "rule"), classes=classes)
    write_evaluation(tmp_path, classes=classes, positive="NMOSD", notes=[])
    resnet = rows(tmp_path, "table-4")["resnet50"]
    assert resnet["acc"] != "n/a"
    assert resnet["acc_low"] == "n/a"
    assert "too few subjects" in resnet["acc_reason"]
    assert not (tmp_path / "figures" / "figure-10_overlay.png").exists()


def test_a_broken_example_is_named(make_crossval, tmp_path):
    make_crossval(tmp_path, subjects=4, models=("unet",))
    file = next(tmp_path.glob("models/unet/*/examples/*.npz"))
    file.write_bytes(b"nothing")
    with pytest.raises(MsnmoError, match=file.name):
        write_evaluation(tmp_path, classes=("MS", "NMOSD"), positive="NMOSD", notes=[])
