"""The four sources of real scans with lesion masks: who is tested together.

A person with all visits is in one source. What a fold leaves out is not used in its training in
any form: scan, mask or patch of a lesion.
"""

from __future__ import annotations

from pathlib import Path

from msnmo_bids.labelled.scans import Found, find_labelled_scans

#: Sources by name; each is a list of data sets with the labels of the people in them (all: "").
SOURCES: dict[str, dict[str, tuple[str, ...]]] = {
    "ljubljana": {"ds-ljubljana-labelled": ()},
    "1.5T": {"ds-ms3seg-labelled": (), "ds-clinical-labelled": ("01", "02", "03", "04", "05")},
    "site-b": {"ds-clinical-labelled": ("06", "07", "08")},
    "mslesseg": {"ds-mslesseg-labelled": ()},
}

#: People who are there twice, and the label that counts. Registered rigidly, the images of these
#: two correlate by .78, those of any other two people of the data set by at most .38.
SAME_PERSON = {("ds-ms3seg-labelled", "05"): ("ds-ms3seg-labelled", "03")}


def labelled_data(data: Path) -> Found:
    """Find the real scans in the data sets of a folder that have a lesion mask."""
    names = sorted({name for source in SOURCES.values() for name in source})
    found = find_labelled_scans([data / name for name in names], classes=("MS", "NMOSD"))
    return Found(tuple(scan for scan in found.scans if scan.mask is not None), found.left_out)


def person_of(dataset: str, subject: str) -> tuple[str, str]:
    """Return the data set and the label under which a person counts.

    >>> person_of("ds-ms3seg-labelled", "05")
    ('ds-ms3seg-labelled', '03')
    """
    return SAME_PERSON.get((dataset, subject), (dataset, subject))


def source_of(dataset: str, subject: str) -> str:
    """Name the source, a key of `SOURCES`, of a person in a data set.

    Raises
    ------
    KeyError
        The person is of no source.

    Examples
    --------
    >>> source_of("ds-clinical-labelled", "06"), source_of("ds-ms3seg-labelled", "01")
    ('site-b', '1.5T')
    """
    for name, people in SOURCES.items():
        if dataset in people and (not people[dataset] or subject in people[dataset]):
            return name
    raise KeyError(f"{dataset}/sub-{subject}")
