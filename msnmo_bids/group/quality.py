"""The colour of each scan's quality check, as the participant level has written it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msnmo_bids.bids.records import ScanRecord

_SUFFIX = "_quality.json"
_AMBER = "amber"


def read_quality(
    output_dir: Path, records: Sequence[ScanRecord]
) -> dict[str, tuple[str, list[str]]]:
    """Read the quality checks.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    records : sequence of ScanRecord
        All scans.

    Returns
    -------
    dict of str to (str, list of str)
        Colour (green, amber, red) and reasons by scan; scans without a check are left out.
    """
    found = {}
    for record in records:
        checked = record.diagnosis.get("Quality")
        if isinstance(checked, Mapping) and checked.get("Level"):
            level, reasons = str(checked["Level"]), [str(r) for r in checked.get("Reasons") or []]
            if level == _AMBER and not reasons:
                reasons = _amber_figures(output_dir, record)
            found[record.relative] = (level, reasons)
    return found


def _amber_figures(output_dir: Path, record: ScanRecord) -> list[str]:
    """Name the figures of a scan's quality file that are amber."""
    names = (str(name) for name in record.diagnosis.get("Outputs") or [])
    path = next((output_dir / name for name in names if name.endswith(_SUFFIX)), None)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        content = {}
    figures = content.get("Figures") or {}
    return [
        f"{name} {figure.get('Value')} {figure.get('Unit', '')}".strip()
        for name, figure in figures.items()
        if isinstance(figure, Mapping) and figure.get("Level") == _AMBER
    ] or ["see the participant's page"]
