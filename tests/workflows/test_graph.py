"""What the workflows are made of, and the stock nodes' command lines run against the doubles."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import nibabel as nib
import numpy as np
import pytest
from nipype.interfaces import ants, fsl
from phantoms import AFFINE, head

from msnmo_bids.model.calibration import DIRICHLET_CALIBRATION, Calibration
from msnmo_bids.model.weights import read_metadata
from msnmo_bids.preprocessing.bias import ITK_THREADS, N4_THREADS
from msnmo_bids.preprocessing.skullstrip import FOREGROUND_TOOL
from msnmo_bids.reports.methods import CITATION, bibliography
from msnmo_bids.workflows.preprocessing import ants_version, init_preprocessing_wf
from msnmo_bids.workflows.scan import init_msnmo_wf, init_scan_wf, run_record
from msnmo_bids.workflows.step_names import STEP_NAMES, step_name, workflow_name

COMMON = {
    "preprocessing_wf.conform",
    "preprocessing_wf.brain_mask",
    "preprocessing_wf.apply_mask",
    "lesion_wf.to_cube",
    "lesion_wf.network",
    "lesion_wf.regions",
    "lesion_wf.segment",
    "figures",
    "quality",
    "write_derivatives",
}


def build(scans, settings, weights, tmp_path, **options):
    return init_msnmo_wf(
        scans=scans,
        settings=settings,
        weights=weights,
        metadata=read_metadata(weights),
        output_dir=tmp_path / "out",
        work_dir=tmp_path / "work",
        **options,
    )


def steps_of(workflow, scan="single_subject_01_wf.scan_sub_01_wf"):
    names = workflow.list_node_names()
    inside = {name.removeprefix(f"{scan}.") for name in names if name.startswith(f"{scan}.")}
    return {name for name in inside if not name.endswith(("inputnode", "outputnode"))}


@pytest.mark.parametrize(
    ("skull_strip", "bias_correction", "nodes"),
    [
        ("bet", "ants", {"bet", "shrink", "n4"}),
        ("deepbet", "antspyx", {"deepbet", "shrink", "n4_antspyx"}),
        ("skip", "skip", {"foreground"}),
    ],
)
def test_nodes_by_tool(make_scan, settings, weights, tmp_path, skull_strip, bias_correction, nodes):
    settings = replace(settings, skull_strip=skull_strip, bias_correction=bias_correction)
    workflow = build([make_scan()], settings, weights, tmp_path)
    assert steps_of(workflow) == COMMON | {f"preprocessing_wf.{node}" for node in nodes}
    assert {step_name(name) for name in steps_of(workflow)} <= set(STEP_NAMES.values())


def test_a_scan_without_skull_is_not_stripped_again(make_scan, settings, weights, tmp_path):
    scans = [replace(make_scan("01"), skull_stripped=True), make_scan("02")]
    workflow = build(scans, replace(settings, skull_strip="deepbet"), weights, tmp_path)
    first = steps_of(workflow)
    second = steps_of(workflow, "single_subject_02_wf.scan_sub_02_wf")
    assert "preprocessing_wf.foreground" in first
    assert "preprocessing_wf.deepbet" not in first
    assert "preprocessing_wf.deepbet" in second


@pytest.mark.parametrize("tool", ["bet", "deepbet"])
@pytest.mark.parametrize(
    ("said", "detect", "looks"),
    [(None, True, True), (None, False, False), (False, True, False), (True, True, False)],
)
def test_a_skull_is_looked_for_where_nobody_said(
    make_scan, settings, weights, tmp_path, tool, said, detect, looks
):
    settings = replace(settings, skull_strip=tool, detect_stripped=detect)
    workflow = build([replace(make_scan(), skull_stripped=said)], settings, weights, tmp_path)
    conform = "single_subject_01_wf.scan_sub_01_wf.preprocessing_wf.conform"
    assert workflow.get_node(conform).inputs.look_for_skull == looks
    last = workflow.get_node("single_subject_01_wf.scan_sub_01_wf.write_derivatives")
    assert ("not stripped again" in last.inputs.provenance["Methods"]) == looks


def test_regions_and_network_may_run_side_by_side(make_scan, settings, weights, tmp_path):
    import networkx as nx

    graph = build([make_scan()], settings, weights, tmp_path)._create_flat_graph()
    by_name = {node.name: node for node in graph if node.name != "inputnode"}
    for first, second in (("network", "regions"), ("regions", "network")):
        assert not nx.has_path(graph, by_name[first], by_name[second])
    assert nx.has_path(graph, by_name["figures"], by_name["write_derivatives"])
    assert not list(graph.successors(by_name["write_derivatives"])) or all(
        node.name == "outputnode" for node in graph.successors(by_name["write_derivatives"])
    )


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_only_cuda_takes_a_gpu_slot(make_scan, settings, weights, tmp_path, device):
    settings = replace(settings, device=device)
    workflow = build([make_scan()], settings, weights, tmp_path, omp_nthreads=4)
    nodes = [workflow.get_node(name) for name in workflow.list_node_names()]
    network = workflow.get_node("single_subject_01_wf.scan_sub_01_wf.lesion_wf.network")
    assert [node for node in nodes if node.is_gpu_node()] == ([] if device == "cpu" else [network])
    assert network.n_procs == (3 if device == "cpu" else 1)
    assert network.inputs.num_threads == (4 if device == "cpu" else 1)
    assert network.inputs.device == device


@pytest.mark.parametrize(("device", "expected"), [("cpu", "bf16"), ("cuda", "fp32")])
def test_the_precision_of_a_gpu_is_not_that_of_deepbet(
    make_scan, settings, weights, tmp_path, device, expected
):
    settings = replace(settings, device=device, precision="bf16", skull_strip="deepbet")
    workflow = build([make_scan()], settings, weights, tmp_path)
    name = "single_subject_01_wf.scan_sub_01_wf.preprocessing_wf.deepbet"
    assert workflow.get_node(name).inputs.precision == expected


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_two_networks_never_run_at_once_in_4_gb(make_scan, settings, weights, tmp_path, precision):
    workflow = build([make_scan()], replace(settings, precision=precision), weights, tmp_path)
    nodes = [workflow.get_node(name) for name in workflow.list_node_names()]
    assert all(node.mem_gb < 3.6 for node in nodes)
    network = workflow.get_node("single_subject_01_wf.scan_sub_01_wf.lesion_wf.network")
    assert 2 * network.mem_gb > 3.6


def test_sloppy_shrinks_the_cube(make_scan, settings, weights, tmp_path):
    name = "single_subject_01_wf.scan_sub_01_wf.lesion_wf.to_cube"
    for sloppy, side in ((True, 64), (False, 160)):
        workflow = build([make_scan()], replace(settings, sloppy=sloppy), weights, tmp_path)
        assert workflow.get_node(name).inputs.shape == [side] * 3


def text_of(scan, settings, weights, tmp_path, **metadata):
    """Return the methods text that the last node of a scan writes."""
    known = replace(read_metadata(weights), **metadata)
    workflow = init_scan_wf(
        scan=scan,
        settings=settings,
        weights=weights,
        metadata=known,
        provenance=run_record(settings, known, "1"),
        output_dir=tmp_path,
    )
    return workflow.get_node("write_derivatives").inputs.provenance["Methods"]


@pytest.mark.parametrize(
    ("change", "said", "not_said"),
    [
        ({"skull_strip": "deepbet"}, f"deepbet {version('deepbet')}, a", "FSL"),
        (
            {"skull_strip": "bet", "bet_frac": 0.4},
            "FSL [@bet], fractional intensity threshold 0.4",
            "deepbet",
        ),
        ({"skull_strip": "skip"}, "came without a skull", "removed with"),
        ({"bias_correction": "antspyx"}, f"antspyx {version('antspyx')}, the field", "N4BiasField"),
        ({"bias_correction": "ants"}, "of ANTs 0.0.0-double [@ants], the field", "antspyx"),
        ({"bias_correction": "skip"}, "was not corrected", "[@n4]"),
        ({"sloppy": False}, "160 x 160 x 160 voxels", "64 x"),
        (
            {"threshold": 0.25, "min_lesion_volume": 7.0},
            "cut at 0.25; connected lesions (26 neighbours) smaller than 7 mm³",
            "cut at 0.5",
        ),
    ],
)
def test_the_methods_text_says_what_ran(
    make_scan, settings, weights, tmp_path, doubles, change, said, not_said
):
    text = text_of(make_scan(), replace(settings, **change), weights, tmp_path)
    assert said in text
    assert not_said not in text
    assert set(CITATION.findall(text)) <= set(bibliography())


def test_the_methods_text_says_when_a_class_is_named(make_scan, settings, weights, tmp_path):
    matrix = ((0.5, 0.0), (0.0, 0.25))
    fitted = Calibration(1.0, DIRICHLET_CALIBRATION, "simulated", matrix, (0.0, 0.1))
    naming = {"MS": 0.8, "NMOSD": None}
    limits = {"naming_limits": naming, "max_distance": 1.5, "calibration": fitted}
    text = text_of(make_scan(), settings, weights, tmp_path, **limits)
    assert (
        "Dirichlet calibration [@dirichlet_calibration] (matrix 0.5, 0; 0, 0.25; offset 0, 0.1)"
        in text
    )
    assert (
        "its share of what MS and NMOSD score together reached its limit (0.8 for MS, NMOSD never) "
        "and the network's" in text
    )
    assert "no farther than 1.5" in text
    plain = text_of(make_scan(), settings, weights, tmp_path)
    assert plain.endswith("where there was a lesion and the image's quality was not red.")


@pytest.mark.parametrize(("limits", "words"), [({"SVD": 0.3}, "0.3"), ({}, "it")])
def test_the_methods_text_says_what_looks_like_a_disease(
    make_scan, settings, weights, tmp_path, limits, words
):
    naming = {"class_names": ("MS", "SVD"), "naming_limits": limits}
    text = text_of(make_scan(), settings, weights, tmp_path, **naming)
    assert f"and SVD scored no more than {words}." in text
    assert ("what MS score together" in text) == bool(limits)


def test_lesions_are_classified_by_a_node_of_its_own(
    make_scan, settings, weights, tmp_path, lesion_weights
):
    workflow = build([make_scan()], settings, lesion_weights, tmp_path)
    assert steps_of(workflow) >= {"lesion_wf.classify"}
    assert {step_name(name) for name in steps_of(workflow)} <= set(STEP_NAMES.values())
    wf = workflow.get_node("single_subject_01_wf.scan_sub_01_wf.lesion_wf")
    assert not wf.get_node("network").interface.inputs.classify
    assert "It gave a score for each class as well." in text_of(
        make_scan(), settings, weights, tmp_path
    )
    plain = build([make_scan()], settings, weights, tmp_path / "plain")
    assert not any("classify" in step for step in steps_of(plain))
    text = text_of(make_scan(), settings, lesion_weights, tmp_path)
    assert "A branch of the network classified the scan by its lesions" in text
    assert set(CITATION.findall(text)) <= set(bibliography())


@pytest.mark.parametrize("step", ["skull_strip", "bias_correction"])
def test_an_unknown_tool_is_an_error(make_scan, settings, step):
    with pytest.raises(ValueError, match="unknown tool 'scissors'"):
        init_preprocessing_wf(scan=make_scan(), settings=replace(settings, **{step: "scissors"}))


def prepared(scan, settings, tmp_path, **change):
    """Run the preprocessing of a scan; return what its nodes gave, by their names."""
    workflow = init_preprocessing_wf(scan=scan, settings=replace(settings, **change))
    workflow.base_dir = str(tmp_path)
    workflow.config["execution"] = {"crashdump_dir": str(tmp_path)}
    nodes = {node.name: node for node in workflow.run().nodes()}
    return nodes, {name: node.result.outputs for name, node in nodes.items()}


def test_bet_runs_as_the_stock_node(make_scan, settings, tmp_path, doubles):
    nodes, outputs = prepared(make_scan(), settings, tmp_path, skull_strip="bet", bet_frac=0.4)
    assert type(nodes["bet"].interface) is fsl.BET
    [words] = doubles()
    assert words[0] == "bet"
    assert words[1].endswith("flair_ras.nii")
    assert words[2].endswith("flair_ras_brain.nii.gz")
    assert words[3:] == ["-f", "0.40", "-m"]
    assert outputs["brain_mask"].tool["Tool"] == "FSL BET"
    assert outputs["brain_mask"].tool["Settings"] == {"frac": 0.4}
    mask = nib.load(outputs["brain_mask"].mask_file)
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(mask.affine, AFFINE)
    assert 0.15 < np.asarray(mask.dataobj).mean() < 0.35


@pytest.mark.parametrize("tool", ["bet", "deepbet"])
def test_a_tool_does_not_strip_what_came_without_a_skull(
    make_scan, settings, tmp_path, doubles, tool
):
    """The mask is all that is there, which no tool would find."""
    values = np.random.default_rng(0).uniform(90, 110, head().shape)
    image = np.where(head() > 50, values, 0).astype(np.float32)
    _, outputs = prepared(make_scan(data=image), settings, tmp_path, skull_strip=tool)
    assert outputs["conform"].stripped
    assert outputs["brain_mask"].tool["Tool"] == FOREGROUND_TOOL
    assert np.array_equal(nib.load(outputs["brain_mask"].mask_file).get_fdata() > 0, image > 0)


def test_the_version_of_bet_is_fsls_own(make_scan, settings, tmp_path, monkeypatch):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "fslversion").write_text("6.0.7.9:abcdef\n")
    monkeypatch.setenv("FSLDIR", str(tmp_path))
    workflow = init_preprocessing_wf(
        scan=make_scan(), settings=replace(settings, skull_strip="bet")
    )
    assert workflow.get_node("brain_mask").inputs.tool["Version"] == "6.0.7.9"


@pytest.mark.parametrize(("sloppy", "levels", "grid_mm"), [(False, 4, 4.0), (True, 2, 8.0)])
def test_n4_runs_as_the_stock_node(make_scan, settings, tmp_path, doubles, sloppy, levels, grid_mm):
    change = {"bias_correction": "ants", "sloppy": sloppy}
    nodes, outputs = prepared(make_scan(), settings, tmp_path, **change)
    assert type(nodes["n4"].interface) is ants.N4BiasFieldCorrection
    assert nodes["n4"].inputs.environ[ITK_THREADS] == str(N4_THREADS)
    [words] = doubles()
    at = words.index("--convergence")
    iterations = "10x10x50x50," if levels == 4 else "20x10,"
    assert words[at : at + 5] == ["--convergence", "[", iterations, "1e-07", "]"]
    assert words[words.index("--shrink-factor") + 1] == "1"
    assert nodes["shrink"].inputs.grid_mm == grid_mm
    workflow = init_preprocessing_wf(scan=make_scan(), settings=replace(settings, **change))
    tool = workflow.get_node("outputnode").inputs.bias_correction
    assert tool["Settings"]["grid_mm"] == grid_mm
    assert words[words.index("--mask-image") + 1].endswith("mask_coarse.nii")
    assert words[words.index("-d") + 1] == "3"
    image, mask, corrected = (
        nib.load(file).get_fdata()
        for file in (
            outputs["conform"].out_file,
            outputs["brain_mask"].mask_file,
            outputs["apply_mask"].out_file,
        )
    )
    assert 0 < mask.mean() < 1
    assert np.allclose(corrected, image / 2 * mask, atol=1e-3)


def test_ants_tells_its_version_itself(doubles, monkeypatch):
    assert ants_version() == "0.0.0-double"
    monkeypatch.setenv("PATH", "")
    assert ants_version() == "unknown"


def test_names_that_differ_only_in_signs_have_workflows_of_their_own(
    make_scan, settings, weights, tmp_path
):
    people = [make_scan("CON-01"), make_scan("CON+01")]
    workflow = build(people, settings, weights, tmp_path)
    assert len({name.split(".")[0] for name in workflow.list_node_names()}) == 2
    assert workflow_name("scan", "sub-1_acq-a+b") != workflow_name("scan", "sub-1_acq-a-b")
