"""From a raw FLAIR to the brain, bias-corrected and in RAS order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.interfaces.conform import Conform
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.workflows.bias import init_bias_correction_wf
from msnmo_bids.workflows.resources import memory_gb
from msnmo_bids.workflows.skullstrip import init_skull_strip_wf

if TYPE_CHECKING:
    from msnmo_bids.bids.scans import Scan


def skull_strip_tool(scan: Scan, settings: ProcessingSettings) -> str:
    """Return the tool that a scan needs: none where its sidecar says that it has no skull."""
    return "skip" if scan.skull_stripped else settings.skull_strip


def looks_for_skull(scan: Scan, settings: ProcessingSettings) -> bool:
    """Say whether the image itself tells if it was stripped: no sidecar and no user did."""
    return (
        settings.detect_stripped
        and scan.skull_stripped is None
        and skull_strip_tool(scan, settings) != "skip"
    )


def init_preprocessing_wf(
    *,
    scan: Scan,
    settings: ProcessingSettings,
    voxels: int = 0,
    omp_nthreads: int = 1,
    name: str = "preprocessing_wf",
) -> LiterateWorkflow:
    """Build the workflow that prepares one scan, for a prediction and for a training alike.

    ``conform -> skull_strip_wf -> bias_correction_wf``

    Parameters
    ----------
    scan : Scan
        The raw FLAIR.
    settings : ProcessingSettings
        With the tools resolved (no ``auto``).
    voxels : int
        Number of voxels of the image, for the memory that the nodes ask for.
    omp_nthreads : int
        Threads of one node.
    name : str
        Name of the workflow.

    Inputs
    ------
    flair
        The raw FLAIR (set from ``scan``).

    Outputs
    -------
    raw_file
        FLAIR in RAS order, as it came.
    info
        Geometry of the raw image and its flags.
    mask_file, mask_flags
        Brain mask on the same grid, and what is odd about it.
    preproc_file
        Bias-corrected FLAIR, 0 outside of the brain.
    skull_stripping, bias_correction
        ``{Tool, Version, Settings}``.
    """
    workflow = LiterateWorkflow(name=name)
    workflow.__desc__ = (
        "The T2-FLAIR was reoriented to RAS, and its header's two orientations were made equal. "
    )
    look = looks_for_skull(scan, settings)
    if look:
        workflow.__desc__ += "Images that came without a skull were found and not stripped again. "
    inputnode = pe.Node(IdentityInterface(fields=["flair"]), name="inputnode")
    inputnode.inputs.flair = str(scan.path)
    fields = ["raw_file", "info", "mask_file", "mask_flags", "preproc_file", "skull_stripping",
              "bias_correction"]  # fmt: skip
    outputnode = pe.Node(IdentityInterface(fields=fields), name="outputnode")
    conform = pe.Node(
        Conform(orientation=settings.assume_orientation, look_for_skull=look),
        name="conform",
        mem_gb=memory_gb("conform", voxels),
    )
    skull_strip_wf = init_skull_strip_wf(
        tool=skull_strip_tool(scan, settings),
        bet_frac=settings.bet_frac,
        voxels=voxels,
        omp_nthreads=omp_nthreads,
    )
    bias_correction_wf = init_bias_correction_wf(
        tool=settings.bias_correction, sloppy=settings.sloppy, voxels=voxels
    )
    workflow.connect([
        (inputnode, conform, [("flair", "in_file")]),
        (conform, skull_strip_wf, [("out_file", "inputnode.in_file"),
                                   ("stripped", "inputnode.stripped")]),
        (conform, bias_correction_wf, [("out_file", "inputnode.in_file")]),
        (skull_strip_wf, bias_correction_wf, [("outputnode.mask_file", "inputnode.mask_file")]),
        (conform, outputnode, [("out_file", "raw_file"), ("info", "info")]),
        (skull_strip_wf, outputnode, [("outputnode.mask_file", "mask_file"),
                                      ("outputnode.tool", "skull_stripping"),
                                      ("outputnode.flags", "mask_flags")]),
        (bias_correction_wf, outputnode, [("outputnode.out_file", "preproc_file"),
                                          ("outputnode.tool", "bias_correction")]),
    ])  # fmt: skip
    return workflow
