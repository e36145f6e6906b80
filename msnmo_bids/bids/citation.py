"""Methods text and references for papers that use the derivatives (``logs/CITATION.*``)."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from msnmo_bids.bids.dataset import write_text

INTRODUCTION = """\
# Methods

This text describes how the derivatives were made. Copy it, and cite the papers it names; their
references are in `CITATION.bib`."""
DISCLAIMER = """\
Research use only: not a medical device. The scores do not replace AQP4 or MOG serology; spinal cord
and optic nerves were not assessed."""


def write_citations(output_dir: Path, methods: Iterable[str]) -> None:
    """Write ``logs/CITATION.md`` and ``logs/CITATION.bib``.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    methods : iterable of str
        ``Methods`` of the records of scans and comparisons; equal ones are written once.
    """
    parts = [INTRODUCTION, *dict.fromkeys(methods), DISCLAIMER]
    write_text(output_dir / "logs" / "CITATION.md", "\n\n".join(parts) + "\n")
    references = files("msnmo_bids.bids").joinpath("data", "CITATION.bib")
    write_text(output_dir / "logs" / "CITATION.bib", references.read_text(encoding="utf-8"))
