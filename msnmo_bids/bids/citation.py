"""Methods text and references for papers that use the derivatives (``logs/CITATION.*``)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from msnmo_bids.bids.dataset import write_text

INTRODUCTION = """\
# Methods

This text describes how the derivatives were made. Copy it, and cite the papers it names; their
references are in `CITATION.bib`.

Scans were processed with *msnmo* {version}, a BIDS App [@bids] that implements a joint network for
lesion segmentation and classification [@joint_model], with *Nipype* [@nipype] and *pybids*
[@pybids]. Bias fields are corrected with N4 [@n4] of *ANTs* [@ants]; skulls are removed with BET
[@bet] or *deepbet* [@deepbet], as stated below.
"""
DISCLAIMER = """\
Research use only: no medical device. The scores do not replace AQP4 or MOG serology; spinal cord
and optic nerves were not assessed.
"""


def write_citations(output_dir: Path, *, methods: Sequence[str], version: str) -> None:
    """Write ``logs/CITATION.md`` and ``logs/CITATION.bib``.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    methods : sequence of str
        One paragraph for each way in which scans were processed, from the workflow itself.
    version : str
        Version of the program.
    """
    paragraphs = [" ".join(text.split()) for text in methods if text.strip()]
    parts = [INTRODUCTION.format(version=version), *paragraphs, DISCLAIMER]
    write_text(output_dir / "logs" / "CITATION.md", "\n\n".join(map(str.strip, parts)) + "\n")
    references = files("msnmo_bids.bids").joinpath("data", "CITATION.bib")
    write_text(output_dir / "logs" / "CITATION.bib", references.read_text(encoding="utf-8"))
