"""The names of workflows, nodes, connections and loggers, and the steps as a person reads them."""

from __future__ import annotations

import hashlib
import re

#: Node name -> what it does, in the words of a progress display or an error message.
STEP_NAMES = {
    "conform": "checking the image",
    "bet": "skull stripping",
    "deepbet": "skull stripping",
    "foreground": "skull stripping",
    "brain_mask": "skull stripping",
    "shrink": "bias correction",
    "n4": "bias correction",
    "n4_antspyx": "bias correction",
    "apply_mask": "bias correction",
    "to_cube": "preparing the network's input",
    "network": "lesion segmentation and classification",
    "regions": "brain regions",
    "segment": "lesion measurement",
    "classify": "classification of the lesions",
    "quality": "quality of the image",
    "figures": "figures",
    "write_derivatives": "writing the derivatives",
    "write_sample": "writing the prepared scan",
    "register": "registration of two visits",
    "compare": "comparison of two visits",
    "change_figure": "figures",
    "write_changes": "writing the derivatives",
}

#: Stock nodes -> the program that they run, and what to try when it fails.
PROGRAMS = {
    "bet": ("FSL BET", "Try --skull-strip deepbet; the crash file has the details"),
    "n4": (
        "ANTs N4BiasFieldCorrection",
        "Try --bias-correction antspyx; the crash file has the details",
    ),
}

#: Step and message of what was not begun, because the run stopped at its first failure.
WAITING, STOPPED = "waiting", "not processed, because the run stopped at the first failure"
#: The node whose end completes a scan; a comparison of two visits.
LAST_NODE, LAST_NODE_OF_VISITS = "write_derivatives", "write_changes"
#: The workflow of a run, of its comparisons of visits; their folders in the work folder.
WORKFLOW, VISITS_WORKFLOW = "msnmo_wf", "visits_wf"
NIPYPE_LOGGERS = tuple(
    f"nipype{part}" for part in ("", ".workflow", ".interface", ".utils", ".filemanip")
)
#: The most scans of one workflow: Nipype's bookkeeping grows with the square of the nodes.
BATCH = 250


def workflow_name(kind: str, what: str) -> str:
    """Return the name of the workflow of something, and so of its work folder.

    Where a name holds other signs than letters, digits and those of BIDS, a hash tells it from
    others.

    >>> workflow_name("scan", "sub-01_acq-3d")
    'scan_sub_01_acq_3d_wf'
    >>> workflow_name("scan", "sub-01_acq-3+d") == workflow_name("scan", "sub-01_acq-3-d")
    False
    """
    plain = re.sub("[^0-9A-Za-z]", "_", what)
    if re.search("[^0-9A-Za-z_-]|-[^_]*-", what):
        plain += f"_{hashlib.sha256(what.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return f"{kind}_{plain}_wf"


def subject_workflow_name(subject: str) -> str:
    """Return the name of a participant's workflow."""
    return workflow_name("single_subject", subject)


def scan_of(node: str) -> str:
    """Return the scan's workflow of a node, given its full name: the first three parts.

    >>> scan_of("msnmo_wf.single_subject_01_wf.scan_sub_01_wf.lesion_wf.network")
    'msnmo_wf.single_subject_01_wf.scan_sub_01_wf'
    """
    return ".".join(node.split(".")[:3])


def step_name(node: str) -> str:
    """Return what a node does, in words, from its name or its full name.

    >>> step_name("msnmo_wf.sub_01_wf.scan_sub_01_wf.conform")
    'checking the image'
    """
    name = node.rsplit(".", 1)[-1]
    return STEP_NAMES.get(name, name.replace("_", " "))


def same(*names: str, of: str = "") -> list[tuple[str, str]]:
    """Connect outputs with the inputs of the same names, of a workflow with ``of="outputnode."``.

    Each connection needs a list of its own: Nipype empties it when it flattens the graph.
    """
    return [(f"{of}{name}", name) for name in names]
