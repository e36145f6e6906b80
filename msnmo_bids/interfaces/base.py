"""What all nodes of msnmo share: how they report a failure that a user can act on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nipype.interfaces.base import Bunch, SimpleInterface

from msnmo_bids.errors import ExitCode, MsnmoError

FAILURE_FILE = "failure.json"


class StepInterface(SimpleInterface):
    """One step of the work on a scan.

    A subclass defines ``input_spec``, ``output_spec`` and ``_compute``. A :class:`MsnmoError` that
    ``_compute`` raises is written into the node's folder before Nipype turns it into text, so that
    the run can report the problem and the remedy whatever plugin ran the node.
    """

    def _compute(self, folder: Path) -> dict[str, Any]:
        """Do the work in the node's own folder and return its outputs by name."""
        raise NotImplementedError

    def _run_interface(self, runtime: Bunch) -> Bunch:
        folder = Path(runtime.cwd)
        try:
            self._results.update(self._compute(folder))
        except MsnmoError as error:
            write_failure(folder, error)
            raise
        return runtime


def write_failure(folder: Path, error: MsnmoError) -> None:
    """Write an error beside the node that met it.

    Parameters
    ----------
    folder : Path
        The node's working directory.
    error : MsnmoError
        What went wrong.
    """
    record = {
        "problem": error.problem,
        "file": error.file,
        "remedy": error.remedy,
        "exit_code": int(error.exit_code),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE_FILE).write_text(json.dumps(record), encoding="utf-8")


def read_failure(folder: Path) -> MsnmoError | None:
    """Return the error that a node left in its folder, None when there is none."""
    try:
        record = json.loads((folder / FAILURE_FILE).read_text(encoding="utf-8"))
        return MsnmoError(
            record["problem"],
            file=record["file"],
            remedy=record["remedy"],
            exit_code=ExitCode(record["exit_code"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
