"""Thousands of scans: run in batches, each one's work folder removed when it is done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

#: Nipype's bookkeeping grows with the square of the nodes.
BATCH = 250

_T = TypeVar("_T")


def batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield a sequence in parts of at most `BATCH`, in order."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


class WorkDirCleaner:
    """Remove the work folder of a scan when it is done: thousands of scans would fill a disk.

    Parameters
    ----------
    work_dir : Path
        Folder of the workflow's own folder.
    last_node : str
        Name of the node whose end completes a scan.
    keep : bool
        Remove nothing, for a look at what is in between.
    """

    def __init__(self, work_dir: Path, *, last_node: str, keep: bool = False) -> None:
        self._work_dir, self._last_node, self._keep = work_dir, last_node, keep
        self._done: list[Path] = []

    def on_event(self, node: str, event: str) -> None:
        """Clean up what was done before; note what is done now.

        Nipype may still look at a node's folder while it reports its end, so a folder is removed
        at the next event.

        Parameters
        ----------
        node : str
            Full name of a node (``workflow.subject.scan.node``).
        event : str
            ``"start"``, ``"end"`` or ``"exception"``.
        """
        self.clean()
        *scan, name = node.split(".")
        if event == "end" and name == self._last_node and not self._keep:
            self._done.append(self._work_dir.joinpath(*scan))

    def clean(self) -> None:
        """Remove the folders of scans that are done."""
        while self._done:
            folder = self._done.pop()
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # the participant's folder, when this was its last scan
                folder.parent.rmdir()
