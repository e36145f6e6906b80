"""From the conformed FLAIR and its brain mask to the preprocessed FLAIR."""

from __future__ import annotations

import re
import subprocess

from nipype.interfaces.ants import N4BiasFieldCorrection
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow as Workflow

from msnmo_bids.interfaces.masks import ApplyMask
from msnmo_bids.interfaces.n4 import N4AntsPyX
from msnmo_bids.workflows.resources import memory_gb

_DESCRIPTIONS = {
    "ants": """\
Intensity non-uniformity was corrected with N4BiasFieldCorrection [@n4] of ANTs. """,
    "antspyx": """\
Intensity non-uniformity was corrected with N4 [@n4] in the Python package antspyx. """,
    "skip": """\
Intensity non-uniformity was not corrected. """,
}
_CONVERGENCE = 1e-7


def init_bias_correction_wf(
    *,
    tool: str,
    sloppy: bool = False,
    voxels: int = 0,
    name: str = "bias_correction_wf",
) -> Workflow:
    """Build the workflow that corrects the bias field and applies the brain mask.

    ``ants``: ``inputnode -> n4 -> apply_mask -> outputnode`` with Nipype's stock node for ANTs;
    ``antspyx``: the same with ``n4_antspyx``; ``skip``: without either. N4 runs in one thread: its
    sums depend on the number of threads.

    Parameters
    ----------
    tool : {"ants", "antspyx", "skip"}
        Tool that corrects the bias field.
    sloppy : bool
        Fewer iterations on a coarser grid, for tests.
    voxels : int
        Number of voxels of the image, for the memory that the nodes ask for.
    name : str
        Name of the workflow.

    Inputs
    ------
    in_file
        FLAIR in RAS order.
    mask_file
        Brain mask on the same grid.

    Outputs
    -------
    out_file
        Corrected FLAIR, 0 outside of the brain.
    tool
        ``{Tool, Version, Settings}`` of what corrected it.

    Raises
    ------
    ValueError
        If there is no such tool.
    """
    if tool not in _DESCRIPTIONS:
        raise ValueError(f"unknown tool {tool!r} (there are {', '.join(_DESCRIPTIONS)})")
    workflow = Workflow(name=name)
    workflow.__desc__ = _DESCRIPTIONS[tool]
    inputnode = pe.Node(IdentityInterface(fields=["in_file", "mask_file"]), name="inputnode")
    outputnode = pe.Node(IdentityInterface(fields=["out_file", "tool"]), name="outputnode")
    apply_mask = pe.Node(ApplyMask(), name="apply_mask", mem_gb=memory_gb("mask", voxels))
    workflow.connect([
        (inputnode, apply_mask, [("mask_file", "mask_file")]),
        (apply_mask, outputnode, [("out_file", "out_file")]),
    ])  # fmt: skip
    shrink_factor, n_iterations = (8, [20, 10]) if sloppy else (4, [50, 50, 50, 50])

    if tool == "skip":
        outputnode.inputs.tool = {"Tool": "none", "Version": "n/a", "Settings": {}}
        workflow.connect(inputnode, "in_file", apply_mask, "in_file")
        return workflow

    if tool == "ants":
        n4 = pe.Node(
            N4BiasFieldCorrection(
                dimension=3,
                shrink_factor=shrink_factor,
                n_iterations=n_iterations,
                convergence_threshold=_CONVERGENCE,
                copy_header=True,
            ),
            name="n4",
            n_procs=1,
            mem_gb=memory_gb("n4", voxels),
        )
        outputnode.inputs.tool = {
            "Tool": "ANTs N4BiasFieldCorrection",
            "Version": ants_version(),
            "Settings": {
                "shrink_factor": shrink_factor,
                "n_iterations": n_iterations,
                "convergence_threshold": _CONVERGENCE,
            },
        }
        workflow.connect([
            (inputnode, n4, [("in_file", "input_image"), ("mask_file", "mask_image")]),
            (n4, apply_mask, [("output_image", "in_file")]),
        ])  # fmt: skip
        return workflow

    n4_antspyx = pe.Node(
        N4AntsPyX(shrink_factor=shrink_factor, n_iterations=n_iterations),
        name="n4_antspyx",
        n_procs=1,
        mem_gb=memory_gb("n4", voxels),
    )
    workflow.connect([
        (inputnode, n4_antspyx, [("in_file", "in_file"), ("mask_file", "mask_file")]),
        (n4_antspyx, apply_mask, [("out_file", "in_file")]),
        (n4_antspyx, outputnode, [("tool", "tool")]),
    ])  # fmt: skip
    return workflow


def ants_version() -> str:
    """Return the version that ``N4BiasFieldCorrection`` tells of itself, or ``"unknown"``."""
    try:
        told = subprocess.run(
            ["N4BiasFieldCorrection", "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"ANTs Version:\s*v?(\S+)", told)
    return found.group(1) if found else "unknown"
