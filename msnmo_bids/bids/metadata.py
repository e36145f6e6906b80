"""Sidecars of raw images, after the inheritance principle of BIDS."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SIDECAR_SUFFIX = "FLAIR.json"


class Sidecars:
    """The FLAIR sidecars of a data set; each folder is listed once, each file is read once.

    A sidecar applies to an image when it lies in the image's folder or above and all its entities
    are the image's. The nearer one wins, and in one folder the one with more entities. A sidecar
    that cannot be read is left out with a warning: it must not stop the other scans.

    Parameters
    ----------
    bids_dir : Path
        Root of the data set.
    """

    def __init__(self, bids_dir: Path) -> None:
        self.bids_dir = bids_dir
        self._in_folder = cache(self._list)
        self._content = cache(self._read)

    def of(self, relative: str) -> dict[str, Any]:
        """Return the metadata of an image.

        Parameters
        ----------
        relative : str
            POSIX path of the image from the root.

        Returns
        -------
        dict
            Keys and values of all sidecars that apply.
        """
        folder, _, name = relative.rpartition("/")
        parts = folder.split("/")
        entities = set(name.split("_")[:-1])
        metadata: dict[str, Any] = {}
        for depth in range(len(parts) + 1):
            sidecars = self._in_folder("/".join(parts[:depth]))
            for theirs, sidecar in sorted(sidecars, key=lambda item: (len(item[0]), item[1])):
                if theirs <= entities:
                    metadata |= self._content(sidecar)
        return metadata

    def _list(self, folder: str) -> list[tuple[frozenset[str], str]]:
        """Return the entities and the path of each sidecar in a folder."""
        return [
            (frozenset(path.name.split("_")[:-1]), f"{folder}/{path.name}".lstrip("/"))
            for path in (self.bids_dir / folder).glob(f"*{SIDECAR_SUFFIX}")
            if path.name.split("_")[-1] == SIDECAR_SUFFIX
        ]

    def _read(self, sidecar: str) -> dict[str, Any]:
        try:
            content = json.loads((self.bids_dir / sidecar).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            logger.warning("%s: the sidecar cannot be read (%s): ignored", sidecar, error)
            return {}
        return content if isinstance(content, dict) else {}
