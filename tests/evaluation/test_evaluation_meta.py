"""The meta-analysis reproduces the paper, says what is wrong with a table, and pools sites."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msnmo_bids.cli import meta
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.evaluation.meta.analysis import Study, egger, leave_one_out, pool, subgroups
from msnmo_bids.evaluation.meta.check import checks
from msnmo_bids.evaluation.meta.folders import pooled_folders, read_results
from msnmo_bids.evaluation.meta.published import reference, table
from msnmo_bids.evaluation.meta.sites import SiteScan, pool_sites, site_studies
from msnmo_bids.evaluation.meta.studies import Studies, mean_study, rounded, share_study
from msnmo_bids.evaluation.meta.summary import Analysis, analyse, sentences
from msnmo_bids.evaluation.meta.table import read_studies

DSC = "DSC (%)"
CLASSES = ("MS", "NMOSD")


@pytest.fixture(scope="module")
def paper() -> Analysis:
    with table() as file:
        (data,) = read_studies(file)
    return analyse(data)


def printed(value: float, text: str) -> bool:
    """Whether a number rounds to the printed one; a half may be rounded either way."""
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10.0**-digits + 1e-7


def as_printed(estimate, *texts: str) -> bool:
    ends = (estimate.effect, estimate.low, estimate.high)
    return all(printed(value, text) for value, text in zip(ends, texts, strict=True))


def test_pooled_dsc(paper):
    pooled = paper.pooled
    assert paper.data.measure == DSC
    assert pooled.studies == 8
    assert pooled.model == "random"
    assert as_printed(pooled.chosen, "63.78", "58.29", "69.27")
    assert printed(pooled.q, "43991.74")
    assert printed(pooled.tau2, "62.835")
    assert printed(100 * pooled.i2, "99.98")
    assert pooled.p < 1e-5
    assert printed(pooled.prediction.low, "43.2")
    assert printed(pooled.prediction.high, "84.4")


@pytest.mark.parametrize(
    ("study", "texts"),
    [
        ("Afzal 2021", ("63.32", "57.06", "69.58")),
        ("Aslani 2019a", ("62.92", "56.88", "68.96")),
        ("Aslani 2019b", ("63.38", "57.10", "69.66")),
        ("Coronado 2020", ("61.89", "57.20", "66.58")),
        ("Kazancli 2018", ("64.68", "58.67", "70.69")),
        ("La Rosa 2018", ("63.89", "57.55", "70.23")),
        ("Roy 2018", ("64.84", "58.96", "70.71")),
        ("Valverde 2018", ("65.32", "60.02", "70.62")),
    ],
)
def test_leave_one_out(paper, study, texts):
    assert as_printed(paper.without[study].chosen, *texts)
    assert len(paper.without) == 8


@pytest.mark.parametrize(
    ("column", "value", "texts"),
    [
        ("country", "Australia", ("67.00", "66.80", "67.20")),
        ("country", "Switzerland", ("63.00", "62.80", "63.20")),
        ("country", "USA", ("66.70", "66.56", "66.83")),
        ("country", "Spain", ("55.25", "55.11", "55.39")),
        ("country", "Italy", ("68.17", "68.04", "68.31")),
        ("architecture", "2D", ("64.94", "64.84", "65.03")),
        ("architecture", "3D", ("62.63", "62.53", "62.72")),
    ],
)
def test_subgroups(paper, column, value, texts):
    found = {group.column: group for group in paper.subgroups}
    assert as_printed(found[column].pooled[value].fixed, *texts)


def test_between_subgroups(paper):
    found = {group.column: group for group in paper.subgroups}
    assert printed(found["architecture"].q, "1067.22")
    assert printed(found["country"].q, "21212.51")
    assert found["country"].df == 4
    assert found["country"].p < 1e-5
    assert printed(100 * found["architecture"].i2, "99.9")
    assert found["country"].q_random is None  # Australia has one study, and so no tau²
    assert found["architecture"].p_random > 0.05  # what the fixed effect hides


def test_the_misprint_is_flagged_and_nothing_else(paper):
    found = checks(paper)
    assert len(found) == 19  # Tables 3 and 4, the pooled row and Q
    wrong = [check for check in found if not check.agrees]
    assert [(c.what, c.printed, c.computed) for c in wrong] == [
        ("Q between country", "2121.51", "21212.51")
    ]
    assert wrong[0].hint == "a digit was dropped in print"


def test_egger_of_equal_errors_is_not_estimable(paper):
    assert paper.egger.p is None
    text = " ".join(sentences(paper))
    assert "Egger's test of the funnel plot: not estimable (all standard errors are equal" in text
    assert "Random effects: DSC 63.78 [58.29, 69.27]" in text


def test_reference_lines():
    assert reference(DSC).text == "published CNNs: 63.78 [58.29, 69.27]"
    assert "91.38 [83.23, 99.54]" in reference("ACC (%)").text
    assert "98.67 [98.22, 99.12]" in reference("Identification SP (%)").text
    assert reference("SP (%)") is None  # the paper's is of MS against healthy people


def test_egger_of_a_skewed_funnel():
    """Effects that are exactly 1 + 3 se: the intercept is 3."""
    errors = [0.1, 0.2, 0.4, 0.5]
    noise = [0.01, -0.02, 0.01, 0.0]
    found = egger([Study(str(e), 1 + 3 * e + n, e) for e, n in zip(errors, noise, strict=True)])
    assert found.intercept == pytest.approx(3, abs=0.3)
    assert found.p < 0.01
    assert egger([Study("a", 1, 0.1), Study("b", 2, 0.2)]).reason == "fewer than three studies"


def test_less_spread_than_chance_has_no_variance_between():
    """statsmodels' tau² is below 0 here; the random effects are then the fixed ones."""
    found = pool([Study("a", 10, 1), Study("b", 10.1, 2), Study("c", 9.9, 1.5)])
    assert found.tau2 == 0
    assert found.i2 == 0
    assert found.random == found.fixed
    assert found.model == "fixed"


def test_one_and_two_studies():
    alone = pool([Study("a", 10, 1)])
    assert (alone.chosen.effect, alone.p, alone.i2) == (10, None, None)
    assert leave_one_out([Study("a", 10, 1)]) == {}
    assert pool([Study("a", 10, 1), Study("b", 20, 1)]).prediction.reason
    assert subgroups([Study("a", 10, 1, None, {"x": "1"})], "x") is None
    with pytest.raises(ValueError, match="not above 0"):
        pool([Study("a", 10, 0)])


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(0.01, 10)), min_size=2, max_size=8),
    st.floats(-1000, 1000),
)
def test_pooling_moves_with_the_effects(pairs, shift):
    studies = [Study(str(k), *pair) for k, pair in enumerate(pairs)]
    moved = [Study(s.name, s.effect + shift, s.se) for s in studies]
    one, other = pool(studies), pool(moved)
    assert other.random.effect == pytest.approx(one.random.effect + shift, abs=1e-6)
    assert other.q == pytest.approx(one.q, rel=1e-6, abs=1e-6)
    assert min(s.effect for s in studies) - 1e-9 <= one.fixed.effect
    assert one.random.se >= one.fixed.se - 1e-12
    assert sum(one.weights_random) == pytest.approx(1)


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
    assert data.studies[0].effect == pytest.approx(effect)
    assert data.studies[0].se == pytest.approx(se, rel=1e-4)
    assert data.shown(data.studies[0].effect) == pytest.approx(
        10 if effect == 10 else 100 / (1 + math.exp(-effect))
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("study|effect|se/A|10|0", "line 2, column 'se': 0 is not above 0"),
        ("study|effect|se/A|10|1/B|ten|1", "line 3, column 'effect': 'ten' is no number"),
        ("study|effect|se/A|inf|1", "'inf' is no number"),
        ("study|effect|se/A|10|1/A|11|1", "line 3, column 'study': 'A' stands there twice"),
        ("study|effect|se/|10|1", "column 'study': the name is missing"),
        ("study|effect|se/A|10", "line 2 has another number of cells"),
        ("study|effect|se/A|10|1|2", "line 2 has another number of cells"),
        ("study|effect|ci_low|ci_high/A|10|12|8", "12 is not below ci_high, 8"),
        ("study|effect|ci_low|ci_high/A|10|11|12", "10 is not in its interval"),
        ("study|events|total/A|11|10", "column 'events': 11 of 10 is no share"),
        ("study,effect,se/A,10,1", "columns are missing; there are study,effect,se"),
        ("study|effect|effect/A|10|1", "the column 'effect' stands there twice"),
        ("study|effect|se", "the table has no study"),
    ],
)
def test_bad_tables(tmp_path, text, problem):
    with pytest.raises(MsnmoError, match=problem.replace("'", ".")) as caught:
        read_studies(write(tmp_path / "t.tsv", text))
    assert caught.value.exit_code == ExitCode.BAD_DATA
    assert caught.value.file
    assert caught.value.remedy


def test_studies_without_an_error_are_left_out_and_named(tmp_path):
    text = "study|effect|se|year/A|10|1|2018/B|n/a|1|2018/C|12|n/a|2019/D|13|1|2019/E|9|1|2018"
    (data,) = read_studies(write(tmp_path / "t.tsv", text.replace("n/a", "NA")))
    assert [study.name for study in data.studies] == ["A", "D", "E"]
    assert [name for name, _ in data.left_out] == ["B", "C"]
    assert data.columns == ("year",)
    assert "Left out: C (it has neither standard error" in sentences(analyse(data))[0]


def cohort() -> list[SiteScan]:
    """Two sites; site B is better, and its first person has two scans, one of them wrong."""
    rng = np.random.default_rng(0)
    scans = []
    for site, dsc in (("A", 0.5), ("B", 0.7)):
        for person in range(10):
            truth = CLASSES[person % 2]
            scans.append(SiteScan(site, str(person), dsc + rng.normal(0, 0.03), truth, truth))
    scans.append(SiteScan("B", "0", 0.7, "MS", "NMOSD"))
    return [*scans, SiteScan("A", "11", None, "MS", "indeterminate"), SiteScan("C", "1", 0.6)]


def test_sites_count_people_not_scans():
    found = {data.name: data for data in site_studies(cohort(), classes=CLASSES, positive="NMOSD")}
    assert list(found) == ["DSC", "ACC", "SN", "SP"]
    accuracy = {study.name: study for study in found["ACC"].studies}
    assert accuracy["B"].subjects == 10
    assert found["ACC"].shown(accuracy["B"].effect) == pytest.approx(95)  # 9.5 of 10
    assert dict(found["ACC"].left_out) == {"C": "no subjects"}
    assert "In 1 scans" in found["ACC"].notes[0]
    assert found["SN"].studies[0].subjects == 5
    means = {study.name: study.effect for study in found["DSC"].studies}
    assert means["A"] == pytest.approx(50, abs=3)
    assert dict(found["DSC"].left_out)["C"].startswith("too few subjects: 1")


def test_pooled_sites_have_text_and_forest(tmp_path):
    found = pool_sites(cohort(), classes=CLASSES, positive="NMOSD", figures=tmp_path)[:1]
    assert [file.name for file in found[0].figures] == [
        "sites_dsc_forest.svg", "sites_dsc_forest.png",
    ]  # fmt: skip
    assert all(file.stat().st_size > 5000 for file in found[0].figures)
    text = " ".join(found[0].paragraphs)
    assert "DSC (%) of 2 sites with 20 subjects (A, B)" in text
    assert "published CNNs: 63.78 [58.29, 69.27]" in text
    assert pool_sites(cohort()[:5], classes=CLASSES, positive="NMOSD", figures=tmp_path) == []


def test_small_sites():
    assert mean_study("A", [0.5] * 6) == "all subjects have the same value: no standard error"
    assert share_study("A", 0, 0) == "no subjects"
    study = share_study("A", 0, 3)
    assert Studies("ACC (%)", (), logit=True).shown(study.effect) == pytest.approx(12.5)


def test_intervals_of_shares_end_at_0_and_100():
    data = Studies(DSC, ())
    assert (data.shown(-98.9), data.shown(214.7)) == (0, 100)
    assert Studies("VD (%)", ()).shown(130.0) == 130
    assert rounded(62.625) == "62.63"


def test_folders(make_crossval, tmp_path):
    """Sites of one cross-validation, and two folders; the group level's table beside it."""
    first = make_crossval(tmp_path / "one", models=("joint",), subjects=24)
    results = [read_results(first, model="joint", site_column="site")]
    by_site = {d.name: d for d in pooled_folders(results, positive="NMOSD", by_site=True)}
    assert {study.name for study in by_site["DSC"].studies} == {"Ulm", "MS centre", "NMOSD centre"}
    assert sum(study.subjects for study in by_site["ACC"].studies) == 24
    second = tmp_path / "two"
    second.mkdir()
    (second / "group_FLAIR.tsv").write_text(
        "participant_id\tscan\tstatus\tdiagnosis\tparticipants_diagnosis\tprobability_MS\t"
        "probability_NMOSD\nsub-1\ta\tok\tMS\tMS\t0.9\t0.1\nsub-2\tb\tok\tMS\tNMOSD\t0.9\t0.1\n"
        "sub-3\tc\tfailed\tn/a\tMS\tn/a\tn/a\n"
    )
    results = [read_results(f, model="joint", site_column=None) for f in (first, second)]
    found = {d.name: d for d in pooled_folders(results, positive="NMOSD", by_site=False)}
    assert [study.name for study in found["ACC"].studies] == ["one", "two"]
    assert [study.subjects for study in found["ACC"].studies] == [24, 2]
    assert dict(found["DSC"].left_out)["two"].startswith("too few subjects: 0")
    with pytest.raises(MsnmoError, match="no column 'site'"):
        read_results(second, model="joint", site_column="site")
    with pytest.raises(MsnmoError, match=r"no fold of the model 'unet'.*of joint"):
        read_results(first, model="unet", site_column=None)
    with pytest.raises(MsnmoError, match="neither results of msnmo-crossval"):
        read_results(tmp_path, model="joint", site_column=None)


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
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["absent.tsv"], ExitCode.INPUT_MISSING, "the table is missing"),
        (["example", "--subgroups", "age"], ExitCode.BAD_DATA, "there is no column 'age'"),
        (["example", "example"], ExitCode.USAGE, "several tables"),
        (["."], ExitCode.INPUT_MISSING, "neither results of msnmo-crossval"),
    ],
)
def test_program_says_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, code, problem):
    monkeypatch.chdir(tmp_path)
    files = [text for text in arguments if not text.startswith("--") and text != "age"]
    options = arguments[len(files) :]
    assert meta.main([*files, str(tmp_path / "out"), *options]) == code
    assert problem in capsys.readouterr().out
