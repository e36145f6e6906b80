"""The methods section of a report, from the records of what really ran, with its references."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from msnmo_bids.model.calibration import ISOTONIC_CALIBRATION

CITATION = re.compile(r"\[@(\w+)\]")
_ENTRY = re.compile(r"@\w+\{(\w+),(.*?)\n\}", re.DOTALL)
_FIELD = re.compile(r"(\w+) = \{(.*)\},?$", re.MULTILINE)


@dataclass(frozen=True)
class Reference:
    """One entry of the bibliography.

    Parameters
    ----------
    key : str
        As in ``CITATION.bib``.
    text : str
        Authors, title, journal, year.
    doi : str
        Without the resolver's address.
    """

    key: str
    text: str
    doi: str


@dataclass(frozen=True)
class MethodsText:
    """Paragraphs whose citations are numbers in brackets, and the references in that order."""

    paragraphs: tuple[str, ...]
    references: tuple[Reference, ...]


def methods(records: Mapping[str, Mapping[str, Any]]) -> MethodsText:
    """Write the methods section for the scans of a report.

    Parameters
    ----------
    records : mapping of str to mapping
        Name of a scan -> its diagnosis file. Scans that were processed alike share a text.

    Returns
    -------
    MethodsText
        Empty when there are no records.
    """
    scans: dict[str, list[str]] = {}
    for name, record in records.items():
        scans.setdefault(_processing(record), []).append(name)
    texts = []
    for text, names in scans.items():
        about = f"Scans {', '.join(names)}. " if len(scans) > 1 else ""
        texts.append(about + text)
    if texts:
        texts += [_software(next(iter(records.values())))]
    return _numbered(texts)


def _processing(record: Mapping[str, Any]) -> str:
    sentences = [
        "The T2-FLAIR was reoriented to RAS, and its header's two orientations were made equal.",
        _skull_stripping(record.get("SkullStripping") or {}),
        _bias_correction(record.get("BiasCorrection") or {}),
        _network(record),
        _lesions(record),
        calibration(record.get("Calibration") or {}).replace(
            ISOTONIC_CALIBRATION, f"{ISOTONIC_CALIBRATION} [@isotonic_calibration]"
        ),
        _decision(record.get("MinimumClassProbability")),
        _familiarity(record.get("MaximumOutOfDistributionScore")),
    ]
    return " ".join(filter(None, sentences))


def _skull_stripping(tool: Mapping[str, Any]) -> str:
    name = str(tool.get("Tool", "unknown"))
    settings = tool.get("Settings") or {}
    if "deepbet" in name.lower():
        return (
            f"The skull was removed with deepbet{_version(tool)}, a convolutional network for "
            "brain extraction [@deepbet]."
        )
    if "bet" in name.lower():
        fractions = [value for key, value in settings.items() if "frac" in key.lower()]
        threshold = f", fractional intensity threshold {fractions[0]}" if fractions else ""
        return (
            f"The skull was removed with the Brain Extraction Tool of FSL{_version(tool)} "
            f"[@bet]{threshold}."
        )
    if "foreground" in name.lower():
        return "The image came without a skull; its brain mask is what is not background."
    return f"The brain was extracted with {name}{_version(tool)}."


def _bias_correction(tool: Mapping[str, Any]) -> str:
    name = str(tool.get("Tool", "none"))
    if name.lower() in ("none", "skip", "n/a"):
        return "Intensity non-uniformity was not corrected."
    if "antspyx" in name.lower():
        how = (
            f"the N4 algorithm [@n4] of ANTs [@ants] in the Python package antspyx{_version(tool)}"
        )
    elif "ants" in name.lower() or "n4" in name.lower():
        how = f"N4BiasFieldCorrection [@n4] of ANTs{_version(tool)} [@ants]"
    else:
        how = f"{name}{_version(tool)}"
    return f"Intensity non-uniformity was corrected with {how}."


def _network(record: Mapping[str, Any]) -> str:
    model = record.get("Model") or {}
    asked = model.get("LesionNetwork")
    precision = {"fp32": "single precision", "bf16": "bfloat16 precision"}.get(
        str(record.get("Precision")), "unstated precision"
    )
    return (
        "The brain's bounding box and a margin were resized to a cube and z-scored over the brain. "
        "A joint network for lesion segmentation and classification of MS and NMOSD, implemented "
        f"after Huang et al. [@joint_model] (weights {model.get('Name', 'unnamed')} "
        f"{model.get('Version', '')}, {precision}), gave "
        + (
            "a score for each class, reading the lesion probability that a network of its own for "
            f"segmentation ({str(asked['File']).split('.')[0]}) gave for each voxel."
            if asked
            else "a lesion probability for each voxel and a score for each class."
        )
    )


def _lesions(record: Mapping[str, Any]) -> str:
    least = _number(record.get("MinimumLesionVolume"))
    return (
        "The lesion probability was brought back to the scan's own grid (trilinear) and cut at "
        f"{_number(record.get('Threshold'))}; connected lesions (26 neighbours) smaller than "
        f"{least} mm³ were removed. Each lesion was assigned to a candidate region. "
        "Class activation maps were summed over the classifier's three scales, each voxel by what "
        "it counts in the classifier's pooling."
    )


def calibration(record: Mapping[str, Any]) -> str:
    """Say in a sentence how class scores were calibrated.

    Parameters
    ----------
    record : mapping
        ``Temperature``, ``Margins``, ``Chances``, ``Method`` and ``Data`` of the diagnosis file.

    Returns
    -------
    str
        A sentence.
    """
    temperature, chances = record.get("Temperature"), record.get("Chances") or []
    uncalibrated = temperature in (None, 1, 1.0) and not chances
    if uncalibrated or str(record.get("Method")).lower() == "none":
        return "The class scores were not calibrated."
    value = f"temperature {_number(temperature)}"
    if chances:
        limits = f"{_number(min(chances))} to {_number(max(chances))}"
        value = f"a curve that gives the second class {limits}"
    return (
        f"The class scores were calibrated by {record.get('Method')} ({value}) on "
        f"{record.get('Data')}."
    )


def _decision(needed: Any) -> str:
    if not isinstance(needed, int | float) or needed <= 0:
        return "The class with the highest score was named when there was a lesion."
    return (
        "The class with the highest score was named when there was a lesion and the score reached "
        f"{needed:g}."
    )


def _familiarity(farthest: Any) -> str:
    if not isinstance(farthest, int | float):
        return ""
    return (
        "None was named where the network's features of the scan lay farther than "
        f"{farthest:g} from those of its training scans (Mahalanobis distance over the square root "
        "of their number)."
    )


def _software(record: Mapping[str, Any]) -> str:
    version = (record.get("GeneratedBy") or {}).get("Version", "")
    return (
        f"All steps were run by msnmo {version}, a BIDS App [@bids], with Nipype [@nipype] and "
        "PyBIDS [@pybids]."
    )


def _version(tool: Mapping[str, Any]) -> str:
    version = str(tool.get("Version") or "unknown")
    return "" if version in ("unknown", "n/a") else f" {version}"


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else "an unstated value"


def _numbered(texts: Sequence[str]) -> MethodsText:
    """Replace citation keys by numbers, in the order in which they are cited."""
    known = bibliography()
    keys = list(dict.fromkeys(key for text in texts for key in CITATION.findall(text)))
    numbers = {key: number for number, key in enumerate(keys, start=1)}
    paragraphs = tuple(CITATION.sub(lambda found: f"[{numbers[found[1]]}]", text) for text in texts)
    return MethodsText(paragraphs, tuple(known[key] for key in keys))


@lru_cache(maxsize=1)
def bibliography() -> dict[str, Reference]:
    """Read the references that ship with the program (``bids/data/CITATION.bib``).

    Returns
    -------
    dict
        Key -> reference.
    """
    source = files("msnmo_bids.bids").joinpath("data", "CITATION.bib").read_text(encoding="utf-8")
    references = {}
    for key, body in _ENTRY.findall(source):
        entry = {name: re.sub(r"[{}]", "", value) for name, value in _FIELD.findall(body)}
        references[key] = Reference(key, _formatted(entry), entry.get("doi", ""))
    return references


def _formatted(entry: Mapping[str, str]) -> str:
    authors = entry["author"].split(" and ")
    names = [_initials(name) for name in authors if name != "others"]
    if len(authors) > 6 or "others" in authors:
        names = [*names[:3], "et al."]
    place = f"{entry['journal']} {entry.get('volume', '')}"
    number = f"({entry['number']})" if "number" in entry else ""
    pages = entry.get("pages", "").replace("--", "–")
    return f"{', '.join(names)} {entry['title']}. {place}{number}:{pages}, {entry['year']}."


def _initials(name: str) -> str:
    """Shorten given names.

    Examples
    --------
    >>> _initials("Smith, Stephen M.")
    'Smith SM'
    """
    family, _, given = name.partition(", ")
    return f"{family} {''.join(word[0] for word in given.split())}".strip()
