"""The meta-analysis reproduces the paper, says what is wrong with a table, and pools sites."""

from __future__ import annotations

import csv
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msnmo_bids.bids.dataset import write_json, write_tsv
from msnmo_bids.cli import meta
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.evaluation.crossval_results import scan_columns
from msnmo_bids.meta.pooling import Analysis, Pooled, analyse, egger, pool
from msnmo_bids.meta.report import checks, sentences
from msnmo_bids.meta.site_studies import (
    OF_A_SCAN,
    pooled_folders,
    read_results,
    scans_in_two,
    site_studies,
)
from msnmo_bids.meta.studies import PUBLISHED, Estimate, Studies, read_studies, rounded

DSC = "DSC (%)"
CLASSES = ("MS", "NMOSD")


@pytest.fixture(scope="module")
def paper() -> Analysis:
    (data,) = read_studies(PUBLISHED)
    return analyse(data)


def printed(value: float, text: str) -> bool:
    """Whether a number rounds to the printed one; a half may be rounded either way."""
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10.0**-digits + 1e-7


def as_printed(estimate: Estimate, *texts: str) -> bool:
    numbers = Studies(DSC, pd.DataFrame()).numbers(estimate)
    return all(printed(value, text) for value, text in zip(numbers, texts, strict=True))


def pooled(*pairs: tuple[float, float]) -> Pooled:
    """The pooling of effects with their standard errors."""
    return pool(pd.DataFrame(pairs, columns=Estimate._fields))


def test_pooled_dsc(paper):
    found = paper.pooled
    assert paper.data.measure == DSC
    assert found.studies == 8
    assert found.model == "random"
    assert as_printed(found.chosen, "63.78", "58.29", "69.27")
    assert printed(found.q, "43991.74")
    assert printed(found.tau2, "62.835")
    assert printed(100 * found.i2, "99.98")
    assert found.p < 1e-5
    assert printed(found.prediction[0], "43.2")
    assert printed(found.prediction[1], "84.4")


@pytest.mark.parametrize(
    ("column", "value", "texts"),
    [
        ("without", "Afzal 2021", ("63.32", "57.06", "69.58")),
        ("without", "Aslani 2019a", ("62.92", "56.88", "68.96")),
        ("without", "Aslani 2019b", ("63.38", "57.10", "69.66")),
        ("without", "Coronado 2020", ("61.89", "57.20", "66.58")),
        ("without", "Kazancli 2018", ("64.68", "58.67", "70.69")),
        ("without", "La Rosa 2018", ("63.89", "57.55", "70.23")),
        ("without", "Roy 2018", ("64.84", "58.96", "70.71")),
        ("without", "Valverde 2018", ("65.32", "60.02", "70.62")),
        ("country", "Australia", ("67.00", "66.80", "67.20")),
        ("country", "Switzerland", ("63.00", "62.80", "63.20")),
        ("country", "USA", ("66.70", "66.56", "66.83")),
        ("country", "Spain", ("55.25", "55.11", "55.39")),
        ("country", "Italy", ("68.17", "68.04", "68.31")),
        ("architecture", "2D", ("64.94", "64.84", "65.03")),
        ("architecture", "3D", ("62.63", "62.53", "62.72")),
    ],
)
def test_leave_one_out_and_subgroups(paper, column, value, texts):
    found = paper.without[value] if column == "without" else paper.subgroups[column][value]
    assert as_printed(found.chosen if column == "without" else found.estimates["fixed"], *texts)


def test_between_subgroups(paper):
    architecture, country = paper.between["architecture"], paper.between["country"]
    assert printed(architecture["fixed"].q, "1067.22")
    assert printed(country["fixed"].q, "21212.51")
    assert country["fixed"].df == 4
    assert country["fixed"].p < 1e-5
    assert printed(100 * architecture["fixed"].i2, "99.9")
    assert "random" not in country  # Australia has one study, and so no tau²
    assert architecture["random"].p > 0.05  # what the fixed effect hides


def test_the_misprint_is_flagged_and_nothing_else(paper):
    found = checks(paper)
    assert len(found) == 19  # Tables 3 and 4, the pooled row and Q
    wrong = [check for check in found if not check.agrees]
    assert [(c.what, c.printed, c.computed) for c in wrong] == [
        ("Q between country", "2121.51", "21212.51")
    ]
    assert wrong[0].hint == "a digit was dropped in print"


def test_egger_of_equal_errors_is_not_estimable(paper):
    assert isinstance(paper.egger, str)
    text = " ".join(sentences(paper))
    assert "Egger's test of the funnel plot: not estimable (all standard errors are equal" in text
    assert "Random effects: DSC 63.78 [58.29, 69.27]" in text


@pytest.mark.parametrize(
    ("measure", "numbers"),
    [
        (DSC, "published CNNs: 63.78 [58.29, 69.27]"),
        ("ACC (%)", "91.38 [83.23, 99.54]"),
        ("Identification ACC (%)", "98.81 [98.50, 99.13]"),
        ("Identification SN (%)", "98.76 [98.42, 99.10]"),
        ("Identification SP (%)", "98.67 [98.22, 99.12]"),
        ("SP (%)", "None"),  # the paper's is of MS against healthy people
    ],
)
def test_reference_lines(measure, numbers):
    assert numbers in str(Studies(measure, pd.DataFrame()).reference)


def test_egger_of_a_skewed_funnel():
    """Effects that are exactly 1 + 3 se: the intercept is 3."""
    errors, noise = np.array([0.1, 0.2, 0.4, 0.5]), np.array([0.01, -0.02, 0.01, 0.0])
    intercept, p = egger(pd.DataFrame({"effect": 1 + 3 * errors + noise, "se": errors}))
    assert intercept == pytest.approx(3, abs=0.3)
    assert p < 0.01
    two = pd.DataFrame({"effect": [1.0, 2.0], "se": [0.1, 0.2]})
    assert egger(two) == "fewer than three studies"


def test_less_spread_than_chance_has_no_variance_between():
    """statsmodels' tau² is below 0 here; the random effects are then the fixed ones."""
    found = pooled((10, 1), (10.1, 2), (9.9, 1.5))
    assert found.tau2 == 0
    assert found.i2 == 0
    assert found.estimates["random"] == found.estimates["fixed"]
    assert found.model == "fixed"


@pytest.mark.filterwarnings("error")
def test_one_and_two_studies():
    alone = pooled((10, 1))
    assert (alone.chosen, alone.q, alone.p, alone.i2) == (Estimate(10, 1), 0, None, None)
    assert pooled((10, 1), (10, 1)).i2 == 0
    assert pooled((10, 1), (20, 1)).prediction is None
    table = pd.DataFrame({"effect": [10], "se": [1], "left_out": "", "x": "1"}, ["a"])
    found = analyse(Studies(DSC, table))
    assert (found.without, found.subgroups, found.between) == ({}, {}, {})
    with pytest.raises(ValueError, match="not above 0"):
        pooled((10, 0))


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0.01, 10)), min_size=2, max_size=8),
    st.floats(-1000, 1000),
)
def test_pooling_moves_with_the_effects(pairs, shift):
    one, other = pooled(*pairs), pooled(*((effect + shift, se) for effect, se in pairs))
    fixed, random = one.estimates["fixed"], one.estimates["random"]
    moved = other.estimates["random"].effect
    assert moved == pytest.approx(random.effect + shift, abs=1e-6)
    assert other.q == pytest.approx(one.q, rel=1e-6, abs=1e-6)
    assert min(effect for effect, _ in pairs) - 1e-9 <= fixed.effect
    assert random.se >= fixed.se - 1e-12
    assert sum(one.weights["random"]) == pytest.approx(1)


def write(file: Path, text: str) -> Path:
    file.write_text("\n".join("\t".join(line.split("|")) for line in text.split("/")) + "\n")
    return file


@pytest.mark.parametrize(
    ("text", "effect", "se"),
    [
        ("study|effect|se/A|10|2", 10, 2),
        ("study|effect|ci_low|ci_high/A|10|6.08|13.92", 10, 2),
        ("study|effect|sd|subjects/A|10|8|16", 10, 2),
        ("study|events|total/A|9|10", math.log(9), math.sqrt(1 / 9 + 1)),
        ("study|events|total/A|10|10", math.log(21), math.sqrt(2 + 1 / 10.5)),
    ],
)
def test_ways_to_give_an_error(tmp_path, text, effect, se):
    (data,) = read_studies(write(tmp_path / "t.tsv", text))
    study = data.pooled.loc["A"]
    assert study["effect"] == pytest.approx(effect)
    assert study["se"] == pytest.approx(se, rel=1e-4)
    assert data.shown(study["effect"]) == pytest.approx(
        10 if effect == 10 else 100 / (1 + math.exp(-effect))
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("study|effect|se/A|10|0", "line 2, column 'se': 0 is not above 0"),
        ("study|effect|se/A|10|1/B|ten|1", "line 3, column 'effect': 'ten' is not a number"),
        ("study|effect|se/A|inf|1", "'inf' is not a number"),
        ("study|effect|se/A|10|1/A|11|1", "line 3, column 'study': 'A' appears twice"),
        ("study|effect|se/|10|1", "column 'study': the name is missing"),
        ("study|effect|se/A|10", "line 2 has another number of cells"),
        ("study|effect|se/A|10|1|2/B|10|1", "line 2 has another number of cells"),
        ("study|effect|se/1|A|10|1", "lacks the name of the first column"),
        ("study|effect|ci_low|ci_high/A|10|12|8", "12 is not below ci_high, 8"),
        ("study|effect|ci_low|ci_high/A|10|11|12", "10 is not in its interval"),
        ("study|events|total/A|11|10", "column 'events': 11 of 10 is not a share"),
        ("study|events|total/A|9|10/B|2.5|10", "line 3, column 'events': 2.5 of 10 is not a share"),
        ("study|effect|se|left_out/A|10|1|no", "line 2, column 'left_out': 'no' is not a reason"),
        ("study,effect,se/A,10,1", "columns are missing; there are study,effect,se"),
        ("study|effect|effect/A|10|1", "the column 'effect' appears twice"),
        ("study|effect|se|SE/A|10|1|2", "the column 'se' appears twice"),
        ("study|effect|se", "the table has no study"),
    ],
)
def test_bad_tables(tmp_path, text, problem):
    with pytest.raises(MsnmoError, match=problem.replace("'", ".")) as caught:
        read_studies(write(tmp_path / "t.tsv", text))
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert caught.value.file
    assert caught.value.remedy


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_tables_as_people_save_them(tmp_path, caplog, encoding):
    text = 'study |effect|se\r\n"Málaga|10|1\r\nLyon|11|-\r\n'.replace("|", "\t")
    (tmp_path / "t.tsv").write_bytes(text.encode(encoding))
    (data,) = read_studies(tmp_path / "t.tsv")
    assert list(data.studies) == ['"Málaga']
    assert [name for name, _ in data.left_out] == ["Lyon"]
    assert ("read as Latin-1" in caplog.text) == (encoding == "latin-1")


def test_known_columns_may_have_capitals_and_blanks(tmp_path):
    plain = (
        "study|effect|ci_low|ci_high|left_out|Scanner/A|10|9|11||3T/B|12|10|14||3T/C|9|8|10|old|1T"
    )
    other = plain.replace(
        "study|effect|ci_low|ci_high|left_out", "Study|Effect|CI low|CI_high|Left out"
    )
    (data,), (same,) = (read_studies(write(tmp_path / "t.tsv", text)) for text in (plain, other))
    assert same.studies == data.studies
    assert same.left_out == data.left_out == [("C", "old")]


def test_studies_without_an_error_are_left_out_and_named(tmp_path):
    text = "study|effect|se|year/A|10|1|2018/B|n/a|1|2018/C|12|n/a|2019/D|13|1|2019/E|9|1|2018"
    (data,) = read_studies(write(tmp_path / "t.tsv", text.replace("n/a", "NA")))
    assert list(data.studies) == ["A", "D", "E"]
    assert [name for name, _ in data.left_out] == ["B", "C"]
    assert data.columns == ["year"]
    assert "Left out: C (it has neither standard error" in sentences(analyse(data))[0]


def cohort() -> pd.DataFrame:
    """Two sites; site B is better, and its first person has two scans, one of them wrong."""
    rng = np.random.default_rng(0)
    rows = []
    for site, dsc in (("A", 0.5), ("B", 0.7)):
        for person in range(10):
            truth = CLASSES[person % 2]
            rows.append((site, str(person), dsc + rng.normal(0, 0.03), truth, truth))
    rows += [("B", "0", 0.7, "MS", "NMOSD"), ("A", "11", None, "MS", "indeterminate")]
    rows += [("C", str(person), 0.6, None, None) for person in range(6)]
    return pd.DataFrame([*rows, ("D", "1", 0.6, None, None)], columns=OF_A_SCAN)


def test_sites_count_people_not_scans():
    found = {data.name: data for data in site_studies(cohort(), classes=CLASSES, positive="NMOSD")}
    assert list(found) == ["DSC", "ACC", "SN", "SP"]
    accuracy = found["ACC"].pooled.loc["B"]
    assert accuracy["subjects"] == 10
    assert found["ACC"].shown(accuracy["effect"]) == pytest.approx(95)  # 9.5 of 10
    assert dict(found["ACC"].left_out) == {"C": "no subjects", "D": "no subjects"}
    assert "In 1 scans" in found["ACC"].notes[0]
    assert found["SN"].pooled.loc["A", "subjects"] == 5
    # All five right, and half a person added to right and wrong.
    assert found["SN"].shown(found["SN"].pooled.loc["A", "effect"]) == pytest.approx(550 / 6)
    dsc = found["DSC"]
    assert dsc.pooled.loc["A", "effect"] == pytest.approx(50, abs=3)
    assert dsc.pooled.loc["A", "se"] == pytest.approx(3 / math.sqrt(10), rel=0.5)
    assert dict(dsc.left_out) == {
        "C": "all subjects have the same value: no standard error",
        "D": "too few subjects: 1, at least 6 needed",
    }
    text = " ".join(sentences(analyse(dsc)))
    assert "DSC (%) of 2 sites with 20 subjects (A, B)" in text
    assert "published CNNs: 63.78 [58.29, 69.27]" in text


def test_intervals_of_shares_end_at_0_and_100():
    data = Studies(DSC, pd.DataFrame())
    assert (data.shown(-98.9), data.shown(214.7)) == (0, 100)
    assert Studies("VD (%)", pd.DataFrame()).shown(130.0) == 130
    assert rounded(62.625) == "62.63"


def crossval(folder: Path) -> Path:
    """A cross-validation of 24 people at two sites, with a model that does not classify beside."""
    people = [
        {"participant_id": f"sub-{k:02}", "dataset": "demo", "site": "Ulm" if k < 16 else "Bern",
         "diagnosis": CLASSES[k % 2], "fold": k % 2, "scan": f"sub-{k:02}", "dsc": 0.5 + k / 100}
        for k in range(24)
    ]  # fmt: skip
    write_tsv(folder / "folds.tsv", list(people[0])[:5], people)
    for model in ("joint", "unet"):
        for fold in (0, 1):
            scans = [
                {**person, "prob_MS": 0.9, "prob_NMOSD": 0.1} if model == "joint" else person
                for person in people
                if person["fold"] == fold
            ]
            file = folder / "models" / model / f"fold-{fold}" / "scans.tsv"
            write_tsv(file, scan_columns(CLASSES), scans)
    return folder


def test_folders(tmp_path):
    """Sites of one cross-validation, and two folders; the group level's table beside it."""
    first = crossval(tmp_path / "one")
    results = [read_results(first, model="joint", site_column="site")]
    by_site = {d.name: d for d in pooled_folders(results, positive="NMOSD", by_site=True)}
    assert list(by_site["DSC"].studies) == ["Ulm", "Bern"]
    assert list(by_site["ACC"].pooled["subjects"]) == [16, 8]
    second = tmp_path / "two"
    second.mkdir()
    (second / "group_FLAIR.tsv").write_text(
        "participant_id\tscan\tstatus\tdiagnosis\tparticipants_diagnosis\tprobability_MS\t"
        "probability_NMOSD\nsub-1\ta\tcomplete\tMS\tMS\t0.9\t0.1\nsub-2\tb\tcomplete\tMS\tNMOSD\t0.9\t0.1\n"
        "sub-3\tc\tfailed\tn/a\tMS\tn/a\tn/a\n"
    )
    results = [read_results(f, model="joint", site_column=None) for f in (first, second)]
    found = {d.name: d for d in pooled_folders(results, positive="NMOSD", by_site=False)}
    assert list(found["ACC"].studies) == ["one", "two"]
    assert list(found["ACC"].pooled["subjects"]) == [24, 2]
    assert found["ACC"].shown(found["ACC"].pooled.loc["one", "effect"]) == pytest.approx(50)
    assert dict(found["DSC"].left_out)["two"].startswith("too few subjects: 0")
    both = [results[0], results[0]._replace(folder=tmp_path / "other")]
    by_both = {d.name: d for d in pooled_folders(both, positive="NMOSD", by_site=True)}
    assert list(by_both["DSC"].studies) == ["one: Ulm", "one: Bern", "other: Ulm", "other: Bern"]
    assert by_both["DSC"].columns == ["folder"]
    unclassified = [read_results(first, model="unet", site_column=None)]
    (only,) = pooled_folders(unclassified, positive="NMOSD", by_site=False)
    assert (only.name, only.noun) == ("DSC", "folder")


def test_scans_without_a_site_are_no_site(tmp_path, caplog):
    rows = [("sub-1", "Ulm"), ("sub-2", "n/a"), ("sub-3", "Bern"), ("sub-4", "n/a")]
    lines = ["participant_id\tscan\tstatus\tdiagnosis\tsite\tprobability_MS"]
    lines += [f"{name}\t{name}\tcomplete\tMS\t{site}\t1" for name, site in rows]
    (tmp_path / "group_FLAIR.tsv").write_text("\n".join(lines) + "\n")
    found = read_results(tmp_path, model="joint", site_column="site")
    assert list(found.scans["site"]) == ["Ulm", "Bern"]
    [said] = caplog.messages
    assert "2 scans without a site are not pooled" in said


def test_a_folder_given_twice_is_refused(tmp_path, capsys):
    folder = crossval(tmp_path / "one")
    (tmp_path / "link").symlink_to(folder)
    for again in (f"{folder}/", str(tmp_path / "link")):
        assert meta.main([str(folder), again, str(tmp_path / "out")]) == ExitCode.USAGE
        assert f"is the same folder as {folder}" in capsys.readouterr().out


def group_folder(folder: Path, checksums: dict[str, str]) -> Path:
    """The group level's table of some people, with a diagnosis file each."""
    rows = [
        {"participant_id": person, "scan": f"{person}/anat/{person}_FLAIR.nii.gz",
         "status": "complete", "diagnosis": "MS", "participants_diagnosis": "MS",
         "probability_MS": 0.9, "probability_NMOSD": 0.1, "weights": folder.name}
        for person in checksums
    ]  # fmt: skip
    write_tsv(folder / "group_FLAIR.tsv", list(rows[0]), rows)
    for person, checksum in checksums.items():
        empty = {"Regions", "Calibration", "Model", "Settings", "GeneratedBy"}
        diagnosis = {
            "Diagnosis": "MS", "Reason": None, "Probabilities": {"MS": 0.9}, "LesionCount": 1,
            "LesionCountSmall": 0, "LesionVolume": 1, "BrainVolume": 1000, "Flags": [],
            "VoxelSize": [1, 1, 1], "RawImage": {"VoxelsSHA256": checksum},
            **{key: {} for key in empty},
        }  # fmt: skip
        write_json(folder / person / "anat" / f"{person}_desc-msnmo_diagnosis.json", diagnosis)
    return folder


def test_people_in_two_folders_are_named_once(tmp_path, capsys):
    """By the checksum of the image whatever its name, else by the row of the table."""
    one = group_folder(tmp_path / "one", {"sub-1": "abc", "sub-2": "def"})
    two = group_folder(tmp_path / "two", {"sub-1": "012", "sub-3": "def"})
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(one / "group_FLAIR.tsv", bare)
    out = tmp_path / "out"
    assert meta.main([*map(str, (one, two, bare, out))]) == ExitCode.OK
    said = capsys.readouterr().out
    page, text = ((out / name).read_text() for name in ("meta.html", "meta.txt"))
    sub_1, sub_2 = (f"{name}/anat/{name}_FLAIR.nii.gz" for name in ("sub-1", "sub-2"))
    for line in (
        f"1 scans are in {one} and in {two} too: {sub_2}. Their people count in both",
        f"2 scans are in {one} and in {bare} too: {sub_1}, {sub_2}. Their people",
    ):
        assert [place.count(line) for place in (said, page, text)] == [1, 1, 1]
    assert f"{two} and in {bare}" not in said


def test_people_in_two_cross_validations_are_named(tmp_path):
    """A copy's, or those of other folds with the same masks."""
    folders = [crossval(tmp_path / name) for name in ("one", "two")]
    results = [read_results(folder, model="joint", site_column=None) for folder in folders]
    [said] = scans_in_two(results)
    assert said.startswith(f"24 scans are in {folders[0]} and in {folders[1]} too: ")
    for table in folders[1].glob("models/joint/*/scans.tsv"):
        table.write_text(table.read_text().replace("0.9", "0.8"))
    results[1] = read_results(folders[1], model="joint", site_column=None)
    assert scans_in_two(results) == []
    for table in (file for folder in folders for file in folder.glob("models/joint/*/scans.tsv")):
        rows = list(csv.DictReader(table.read_text().splitlines(), delimiter="\t"))
        write_tsv(table, list(rows[0]), [{**row, "true_volume_ml": 1.25} for row in rows])
    results = [read_results(folder, model="joint", site_column=None) for folder in folders]
    assert len(scans_in_two(results)) == 1


def test_folders_without_results(tmp_path):
    first = crossval(tmp_path / "one")
    with pytest.raises(MsnmoError, match="no column 'centre'"):
        read_results(first, model="joint", site_column="centre")
    with pytest.raises(MsnmoError, match=r"no fold of the model 'vnet'.*of joint, unet"):
        read_results(first, model="vnet", site_column=None)
    (tmp_path / "group_FLAIR.tsv").write_text("participant_id\tscan\tstatus\tdiagnosis\n")
    with pytest.raises(MsnmoError, match="there is no column"):
        read_results(tmp_path, model="joint", site_column="site")
    with pytest.raises(MsnmoError, match="neither results of msnmo-crossval"):
        read_results(first / "models", model="joint", site_column=None)


def test_measures_that_differ_in_their_unit_have_figures_of_their_own(tmp_path):
    text = "study|measure|effect|se/A|V (ml)|5|1/A|V (%)|9|1"
    meta.main([str(write(tmp_path / "t.tsv", text)), str(tmp_path / "out")])
    names = {file.name for file in (tmp_path / "out" / "figures").glob("*.svg")}
    assert names == {"v-ml_forest.svg", "v_forest.svg"}


def test_program(tmp_path, capsys):
    out = tmp_path / "out"
    assert meta.main(["example", str(out)]) == ExitCode.OK
    said = capsys.readouterr().out
    assert "computed 21212.51, printed 2121.51 (a digit was dropped in print)" in said
    text = (out / "meta.txt").read_text()
    assert text.count("DIFFERS") == 1
    names = {file.name for file in (out / "figures").iterdir()}
    stems = ("dsc_forest", "dsc_forest_architecture", "dsc_forest_country", "dsc_funnel")
    assert names == {f"{stem}{suffix}" for stem in stems for suffix in (".svg", ".png")}
    with (out / "tables" / "pooled.tsv").open() as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["chosen"] for row in rows] == ["no", "yes"]
    assert float(rows[1]["tau2"]) == pytest.approx(62.8353, abs=1e-4)
    page = (out / "meta.html").read_text()
    assert "a digit was dropped in print" in page
    assert 'src="data:image/png' in page
    assert "df = 7, p &lt; 0.001" in page
    assert "p < 0.001" not in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["absent.tsv", "out"], ExitCode.INPUT_MISSING, "the table is missing"),
        (["example", "out", "--subgroups", "age"], ExitCode.BAD_DATA, "there is no column 'age'"),
        (["example", "example", "out"], ExitCode.USAGE, "several tables"),
        (["empty", "out"], ExitCode.INPUT_MISSING, "neither results of msnmo-crossval"),
    ],
)
def test_program_says_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, code, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert meta.main(arguments) == code
    assert problem in capsys.readouterr().out


@pytest.mark.parametrize("effect", ["670", "-5"])
def test_shares_that_cannot_be_are_refused(tmp_path, effect):
    table = write(tmp_path / "t.tsv", f"study|measure|effect|se/A|DSC (%)|{effect}|1")
    with pytest.raises(MsnmoError, match=f"{effect} is not a share in percent"):
        read_studies(table)


def test_fractions_among_percents_are_named(tmp_path, caplog):
    text = "study|measure|effect|se/A|DSC (%)|0.71|0.02/B|DSC (%)|67|2/C|DSC (%)|66|2"
    read_studies(write(tmp_path / "t.tsv", text))
    [said] = caplog.messages
    assert "some effects are 1 or less (lines 2): if they are fractions of 1" in said


def test_measures_that_differ_in_capitals_alone_are_named(tmp_path, caplog):
    text = "study|measure|effect|se/A|DSC (%)|71|2/B|dsc (%)|67|2/C|AUC|66|2/D|dsc(%)|65|2"
    studies = read_studies(write(tmp_path / "t.tsv", text))
    [said] = caplog.messages
    assert "'DSC (%)', 'dsc (%)', 'dsc(%)' are pooled apart" in said
    assert [len(one.notes) for one in studies] == [1, 1, 0, 1]


def test_a_text_in_left_out_leaves_a_study_out(tmp_path, caplog):
    text = (
        "study|effect|events|total|left_out/A|63|||a preprint/B||30|40|NA/C||31|40|/"
        "Total||60|80|their sum"
    )
    table = write(tmp_path / "t.tsv", text)
    [data] = read_studies(table)
    assert data.left_out == [("A", "a preprint"), ("Total", "their sum")]
    assert (list(data.studies), data.logit) == (["B", "C"], True)
    assert not caplog.messages
    assert meta.main([str(table), str(tmp_path / "out")]) == ExitCode.OK
    assert "Left out: A (a preprint)." in (tmp_path / "out" / "meta.txt").read_text()
    write(table, "study|effect|se|left_out/A|63|2|a preprint")
    assert not read_studies(table)[0].studies


def doubts(file: Path, text: str) -> list[str]:
    """What is said on the page of the only measure of a table."""
    [data] = read_studies(write(file, text))
    return list(data.notes)


def test_studies_that_may_be_one_are_named(tmp_path, caplog):
    text = (
        "study|measure|effect|se/Smith 2020|DSC (%)|63|2/smith 2020|DSC (%)|63|2/"
        "Smith, 2020|DSC (%)|63|2/Smith 2020a|DSC (%)|64|2"
    )
    [said] = doubts(tmp_path / "t.tsv", text)
    assert "'Smith 2020', 'smith 2020', 'Smith, 2020' (lines 2, 3, 4) may be one study" in said
    assert [message.endswith(said[:-1]) for message in caplog.messages] == [True]
    other = "study|measure|effect|se/Smith|DSC (%)|63|2/smith|AUC (%)|63|2"
    assert not any(data.notes for data in read_studies(write(tmp_path / "t.tsv", other)))


@pytest.mark.parametrize("name", ["Pooled", "TOTAL", "overall:", "Summary", "Pooled estimate"])
def test_a_row_that_may_sum_up_the_others_is_named(tmp_path, caplog, name):
    [said] = doubts(tmp_path / "t.tsv", f"study|effect|se/A|63|2/B|70|3/{name}|66|1.5")
    assert f"'{name}' (lines 4) may sum up the others" in said
    assert len(caplog.messages) == 1
    assert not doubts(tmp_path / "t.tsv", "study|effect|se/Total Care 2019|63|2/B|70|3")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "study|effect|se|ci_low|ci_high/A|63|2|10|90/B|63|2|59.1|66.9",
            "by ci_low and ci_high the standard error is not the one used, from se (lines 2):",
        ),
        (
            "study|effect|ci_low|ci_high|sd|subjects/A|63|59.1|66.9|20|100/B|63|59.1|66.9|40|100",
            "by sd and subjects the standard error is not the one used, from ci_low and ci_high "
            "(lines 3):",
        ),
        (
            "study|effect|se|sd|subjects/A|63|2|20|100/B|63|2|4|100",
            "by sd and subjects the standard error is not the one used, from se (lines 3):",
        ),
        (
            "study|effect|se|events|total/A|63|2|10|40/B|62.5|2|25|40/C|0.63|0.1|25|40/D|9|1||",
            "by events and total the effect is not the one used, from effect (lines 2):",
        ),
    ],
)
def test_columns_that_contradict_each_other_are_named(tmp_path, caplog, text, said):
    [note] = doubts(tmp_path / "t.tsv", text)
    assert said in note
    assert len(caplog.messages) == 1


def test_lopsided_intervals_are_named_where_they_are_used(tmp_path):
    table, row = tmp_path / "t.tsv", "study|effect|ci_low|ci_high|se/A|60|55|65|/B|90|80|95|"
    [note] = doubts(table, row)
    assert "intervals are lopsided (lines 3)" in note
    assert not [said for said in doubts(table, f"{row}3") if "lopsided" in said]


def test_a_table_of_fractions_is_named_on_the_page_too(tmp_path):
    text = "study|measure|effect|se/A|DSC (%)|0.71|0.02/B|DSC (%)|0.67|0.02/C|DSC (%)|0.66|0.02"
    [studies] = read_studies(write(tmp_path / "t.tsv", text))
    assert "all effects are 1 or less (lines 2, 3, 4)" in studies.notes[0]


@pytest.mark.parametrize("printed", ['{"Effect": [1, 2]}', '{"Effect": {"I2": 3}}', "[1]"])
def test_what_is_printed_is_text(tmp_path, printed):
    table = write(tmp_path / "t.tsv", "study|effect|se/A|10|1")
    table.with_suffix(".json").write_text(f'{{"Printed": {printed}}}')
    with pytest.raises(MsnmoError, match="'Printed' is no list"):
        read_studies(table)


def test_what_is_printed_must_have_names(tmp_path):
    table = write(tmp_path / "t.tsv", "study|effect|se/A|10|1")
    table.with_suffix(".json").write_text('{"Printed": "x"}')
    with pytest.raises(MsnmoError, match="'Printed' is no list"):
        read_studies(table)


def test_columns_as_papers_print_them_do_not_contradict_each_other(tmp_path, caplog):
    """Intervals by the t distribution, rounded errors, truncated shares, a row left out."""
    for text in (
        "study|effect|ci_low|ci_high|sd|subjects/A|60|51.64|68.36|10|8/B|61|50|72|10|20",
        "study|effect|se|ci_low|ci_high/A|60|0.3|59.3|60.68/B|61|2|57.1|64.9",
        "study|effect|se|events|total/A|66.6|9|2|3/B|50|9|5|10",
        "study|effect|se|left_out/A|66|9|/B|50|9|/A|twice|9|the same people",
        "study|effect|se/CD4+|66|9/CD4-|50|9",
    ):
        assert not [
            note for note in doubts(tmp_path / "t.tsv", text) if "A" in note or "CD4" in note
        ]
