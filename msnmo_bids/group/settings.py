"""What the user asks of the group level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Columns:
    """Columns of the raw data set's tables.

    Parameters
    ----------
    diagnosis, site, age : str
        Column of ``scans.tsv``, ``sessions.tsv`` or ``participants.tsv``.
    scanner : str
        The same; empty: manufacturer, model and field strength from the sidecar.
    """

    diagnosis: str = "diagnosis"
    site: str = "site"
    age: str = "age"
    scanner: str = ""


@dataclass(frozen=True)
class GroupSettings:
    """What the user asks of the group level.

    Parameters
    ----------
    columns : Columns
        Where the raw data set says diagnosis, site, scanner and age.
    positive : str
        Positive diagnosis of sensitivity and ROC; empty: NMOSD, or else the last class.
    masks : mapping of str to Path
        Scan -> manual lesion mask.
    no_mask : mapping of str to str
        Scan -> why it has no manual mask; empty when none were asked for.
    """

    columns: Columns = field(default_factory=Columns)
    positive: str = ""
    masks: Mapping[str, Path] = field(default_factory=dict)
    no_mask: Mapping[str, str] = field(default_factory=dict)
