"""The names of all derivatives, from one data file (``io_spec.json``).

All paths are POSIX strings relative to the output folder.

>>> derivative_paths("sub-01/anat", "sub-01_run-1", ["MS"])["brain_mask"]
'sub-01/anat/sub-01_run-1_space-orig_desc-brain_mask.nii.gz'
>>> sidecar("sub-01/anat/sub-01_desc-preproc_FLAIR.nii.gz")
'sub-01/anat/sub-01_desc-preproc_FLAIR.json'
>>> figure_path("01", "sub-01_run-1", "lesions")
'sub-01/figures/sub-01_run-1_desc-lesions_FLAIR.svg'
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

from msnmo_bids.vocabulary import class_label

CAM_PREFIX = "cam_"
#: Derivatives that are JSON files themselves and have no sidecar.
JSON_KINDS = ("quality", "diagnosis")


@lru_cache(maxsize=1)
def io_spec() -> dict[str, Any]:
    """Return the content of ``io_spec.json``: queries, entity order, names."""
    text = files("msnmo_bids.bids").joinpath("io_spec.json").read_text(encoding="utf-8")
    return json.loads(text)


def derivative_kinds(class_names: Iterable[str]) -> list[str]:
    """Return all kinds as they are written: ``preproc``, …, ``cam_<CLASS>``, ``diagnosis`` last."""
    names = [f"{CAM_PREFIX}{name}" for name in class_names]
    kinds = ((names if kind == "cam" else [kind]) for kind in io_spec()["derivatives"])
    return [kind for some in kinds for kind in some]


def derivative_paths(scan_folder: str, prefix: str, class_names: Iterable[str]) -> dict[str, str]:
    """Return the path of every derivative of one scan by kind, without their sidecars.

    `scan_folder` is that of the scan in the output, such as ``"sub-01/ses-1/anat"``; `prefix` the
    source image's name without ``_FLAIR.nii.gz``, all its entities kept.
    """
    return {
        kind: f"{scan_folder}/{derivative_name(prefix, kind)}"
        for kind in derivative_kinds(class_names)
    }


def derivative_name(prefix: str, kind: str) -> str:
    """Return the file name of one derivative, its entities in the order that BIDS asks for.

    `prefix` is the source image's name without ``_FLAIR.nii.gz``, `kind` one of
    :func:`derivative_kinds`; any other is a KeyError.
    """
    rule = io_spec()["derivatives"]["cam" if kind.startswith(CAM_PREFIX) else kind]
    return _name(prefix, rule, class_name=class_label(kind.removeprefix(CAM_PREFIX)))


def prefix_of(name: str) -> str:
    """Return the source image's name from a diagnosis file's: what `derivative_name` was given.

    >>> prefix_of("sub-01_desc-msnmo_diagnosis.json")
    'sub-01'
    >>> prefix_of("sub-01_desc-brain+msnmo_diagnosis.json")
    'sub-01_desc-brain'
    """
    rule = io_spec()["derivatives"]["diagnosis"]
    value, stem = rule["entities"]["desc"], name.removesuffix(f"_{rule['suffix']}")
    own = f"_desc-{value}"
    return stem.replace(own, "", 1) if own in stem else stem.replace(f"+{value}", "", 1)


def truth_name(prefix: str, kind: str) -> str:
    """Return the file name of a truth of a simulated scan, a key of ``truth`` in ``io_spec.json``.

    For example ``"sub-01_space-orig_label-L_desc-truth_mask.nii.gz"``; `prefix` is the simulated
    image's name without ``_FLAIR.nii.gz``.
    """
    return _name(prefix, io_spec()["truth"][kind])


def change_paths(
    earlier: tuple[str, str], later: tuple[str, str], *, subject: str, space: str
) -> dict[str, str]:
    """Return the path of every file about the change between two visits, without their sidecars.

    `earlier` and `later` are the folder in the output and the name without ``_FLAIR.nii.gz`` of
    each visit's scan, `space` is the name of the half-way space.

    Returns
    -------
    dict of str to str
        ``earlier_flair``, ``later_mask``, …: images of one visit in the half-way space, beside
        that visit's others; ``classes``, ``class_table``, ``table``, ``figure`` and, last,
        ``record``: with the later visit.

    >>> one, two = ("sub-1/ses-a/anat", "sub-1_ses-a"), ("sub-1/ses-b/anat", "sub-1_ses-b")
    >>> change_paths(one, two, subject="1", space="sesasesb")["classes"]
    'sub-1/ses-b/anat/sub-1_ses-b_space-sesasesb_seg-changes_dseg.nii.gz'
    """
    spec = io_spec()
    paths = {
        f"{which}_{kind}": f"{folder}/{_name(prefix, rule, space=space)}"
        for which, (folder, prefix) in (("earlier", earlier), ("later", later))
        for kind, rule in spec["changes"]["visit"].items()
    }
    folder, prefix = later
    figures = spec["figures"]["folder"].format(subject=subject)
    for kind, rule in spec["changes"]["both"].items():
        where = figures if kind == "figure" else folder
        paths[kind] = f"{where}/{_name(prefix, rule, space=space)}"
    return paths


def _name(prefix: str, rule: Mapping[str, Any], **values: str) -> str:
    added = {entity: value.format(**values) for entity, value in rule["entities"].items()}
    return f"{_with_entities(prefix, added)}_{rule['suffix']}"


def sidecar(path: str) -> str:
    """Return the path of a file's JSON sidecar; ValueError for what is not NIfTI or TSV."""
    for extension in (".nii.gz", ".nii", ".tsv"):
        if path.endswith(extension):
            return path.removesuffix(extension) + ".json"
    raise ValueError(f"no sidecar belongs to {path}")


def figure_path(subject: str, prefix: str, kind: str) -> str:
    """Return the path of one figure of a scan.

    `kind` is ``"brainmask"``, ``"bias"``, ``"lesions"`` or ``"cam"``; any other is a ValueError.
    """
    spec = io_spec()["figures"]
    if kind not in spec["kinds"]:
        raise ValueError(f"unknown figure '{kind}' (there are {', '.join(spec['kinds'])})")
    name = f"{_with_entities(prefix, {'desc': kind})}_{spec['suffix']}"
    return f"{spec['folder'].format(subject=subject)}/{name}"


def report_path(subject: str) -> str:
    """Return the path of a participant's report, for example ``sub-01.html``."""
    return io_spec()["reports"]["participant"].format(subject=subject)


def bids_uri(relative: str, dataset: str = "") -> str:
    """Return the BIDS URI of a file, for example ``"bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz"``.

    `dataset` is a name in ``DatasetLinks``; empty for the data set itself.
    """
    return f"bids:{dataset}:{relative}"


def _with_entities(prefix: str, added: Mapping[str, str]) -> str:
    """Return ``prefix`` with entities added where BIDS wants them.

    The prefix's own order is kept. An entity that the source has already gets both values: with
    the new one alone, two sources could have one derivative.

    >>> _with_entities("sub-01_desc-brain", {"space": "orig", "desc": "msnmo"})
    'sub-01_space-orig_desc-brain+msnmo'
    """
    order = {entity: place for place, entity in enumerate(io_spec()["entity_order"])}
    parts = prefix.split("_")
    for entity, value in added.items():
        own = [index for index, part in enumerate(parts) if part.startswith(f"{entity}-")]
        if own:
            parts[own[0]] += f"+{value}"
            continue
        place = order[entity]
        later = [
            index
            for index, part in enumerate(parts)
            if order.get(part.partition("-")[0], -1) > place
        ]
        parts.insert(later[0] if later else len(parts), f"{entity}-{value}")
    return "_".join(parts)
