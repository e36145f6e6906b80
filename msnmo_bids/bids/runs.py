"""The record of each participant run (``logs/<run id>/run.json``) and what they say together."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import write_json
from msnmo_bids.bids.scans import Scan

logger = logging.getLogger(__name__)

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


@dataclass
class RunRecord:
    """One participant run.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    version : str
        Version of the program.
    settings : dict
        Processing settings.
    """

    output_dir: Path
    version: str
    settings: dict[str, Any]
    run_id: str = field(default_factory=lambda: new_run_id())
    started: str = field(default_factory=lambda: _now())
    scans: list[dict[str, Any]] = field(default_factory=list)
    no_flair: list[str] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Folder of the run's log, configuration and crash files."""
        return self.output_dir / "logs" / self.run_id

    def write(self, exit_code: int) -> Path:
        """Write ``run.json`` atomically.

        Parameters
        ----------
        exit_code : int
            Exit code of the run.

        Returns
        -------
        Path
            The file.
        """
        target = self.folder / "run.json"
        content = {
            "RunId": self.run_id,
            "Started": self.started,
            "Finished": _now(),
            "Version": self.version,
            "Settings": self.settings,
            "Scans": self.scans,
            "NoFLAIR": self.no_flair,
            "Comparisons": self.comparisons,
            "ExitCode": int(exit_code),
        }
        write_json(target, content)
        return target


def scan_entry(
    scan: Scan,
    status: str,
    *,
    step: str | None = None,
    message: str | None = None,
    remedy: str | None = None,
    crash_file: str | None = None,
) -> dict[str, Any]:
    """Return the entry of a scan in ``run.json``.

    Parameters
    ----------
    scan : Scan
        The scan.
    status : {"ok", "failed", "skipped"}
        ``skipped`` means that it was complete already.
    step, message, remedy : str, optional
        Of a failure: what was done, what went wrong, what the user can do.
    crash_file : str, optional
        File with the trace, relative to the output folder where it lies in it.

    Returns
    -------
    dict
        JSON-ready.
    """
    return {
        "Scan": scan.relative,
        "Prefix": scan.prefix,
        "Folder": scan.folder,
        "Subject": scan.subject,
        "Session": scan.session,
        "Status": status,
        "Step": step,
        "Message": message,
        "Remedy": remedy,
        "CrashFile": crash_file,
    }


def comparison_entry(
    name: str,
    status: str,
    *,
    step: str | None = None,
    message: str | None = None,
    remedy: str | None = None,
    crash_file: str | None = None,
) -> dict[str, Any]:
    """Return the entry of a comparison of two visits in ``run.json``.

    Parameters
    ----------
    name : str
        Of the comparison.
    status : {"ok", "failed", "skipped"}
        ``skipped`` means that it was complete already.
    step, message, remedy, crash_file : str, optional
        Of a failure, as for a scan.

    Returns
    -------
    dict
        JSON-ready.
    """
    return {
        "Comparison": name,
        "Status": status,
        "Step": step,
        "Message": message,
        "Remedy": remedy,
        "CrashFile": crash_file,
    }


def latest_comparisons(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the latest entry of every comparison, by its name."""
    return {
        entry["Comparison"]: entry
        for run in runs
        for entry in run.get("Comparisons") or []
        if isinstance(entry, dict) and "Comparison" in entry
    }


def new_run_id() -> str:
    """Return a new run's name: UTC time and eight random digits.

    Returns
    -------
    str
        For example ``"20260131-142501_1f0c9a7e"``; names sort by time.
    """
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}_{uuid.uuid4().hex[:8]}"


def read_runs(output_dir: Path) -> list[dict[str, Any]]:
    """Read the records of all runs.

    Parameters
    ----------
    output_dir : Path
        Output folder.

    Returns
    -------
    list of dict
        Oldest first, by the time when they finished; a broken record is left out with a warning.
    """
    runs = []
    for path in sorted((output_dir / "logs").glob("*/run.json")):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(run["Scans"], list):
                raise TypeError("its scans are no list")
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: the record of the run cannot be read (%s)", path, error)
            continue
        runs.append(run)
    return sorted(runs, key=lambda run: (str(run.get("Finished")), str(run.get("RunId"))))


def latest_statuses(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the latest entry of every scan.

    Parameters
    ----------
    runs : sequence of dict
        From :func:`read_runs`.

    Returns
    -------
    dict
        Scan (POSIX path from the root of the input) -> its entry with ``RunId`` added.
    """
    latest: dict[str, dict[str, Any]] = {}
    for run in runs:
        for entry in run["Scans"]:
            if isinstance(entry, dict) and "Scan" in entry:
                latest[entry["Scan"]] = {**entry, "RunId": run.get("RunId")}
    return latest


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
