"""The options of the programs: each is one field, with its type, its default and its help.

The command line is made of these classes (:mod:`msnmo_bids.cli.parser`), and so is what the rest of
the program is given: a frozen instance. A class is a group of options; a program's options inherit
the groups that it has, the first one last. Only the standard library is imported here: ``--help``
must come at once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from msnmo_bids.model.device import PRECISIONS
from msnmo_bids.settings import BIAS_CORRECTION_CHOICES, ORIENTATION_CHOICES, SKULL_STRIP_CHOICES

LEVELS = ("participant", "group")
OUTPUT, WORK = "output folder", "work folder"


def argument(text: str, **how: Any) -> Any:
    """Return a field that is a positional argument; `how` as of argparse's ``add_argument``."""
    return field(metadata={"help": text, **how})


def option(text: str, *names: str, default: Any = None, **how: Any) -> Any:
    """Return a field that is an option; its name is ``--`` and the field's with dashes.

    `names` are others, `how` is as of argparse's ``add_argument``; a ``type`` raises ValueError
    with what is wrong.
    """
    return field(default=default, metadata={"help": text, "names": names, **how})


def flag(text: str, *names: str) -> Any:
    """Return a field that is true when its option is given."""
    return option(text, *names, default=False, action="store_true")


def folder_option(text: str, *names: str) -> Any:
    """Return a field that is an option with a folder."""
    return option(text, *names, metavar="FOLDER", type=Path)


def file_option(text: str, *names: str) -> Any:
    """Return a field that is an option with a file."""
    return option(text, *names, metavar="FILE", type=Path)


def label_of(prefix: str) -> Callable[[str], str]:
    """Return the type of a label that may have its prefix."""

    def label(text: str) -> str:
        value = text.removeprefix(prefix)
        if re.fullmatch(r"[0-9A-Za-z+]+", value):
            return value
        if re.fullmatch(r"[^\s,;/_]+", value) and not os.access(text, os.F_OK):
            return value  # perhaps a person is called so; if not, it is said who there is
        problem = f"'{text}' is not a label (letters and digits only)"
        if re.search(r"[,;\s]", text):
            raise ValueError(f"{problem}; separate labels with blanks: 01 02")
        if "/" in text or os.access(text, os.F_OK):
            raise ValueError(
                f"{problem}; of a file of labels give the content, separated with blanks: "
                f"$(cat {text})"
            )
        raise ValueError(problem)

    return label


def name_or_pattern(text: str) -> str:
    """Return a BIDS name or a pattern as it was given, or refuse several in one."""
    if re.search(r"[,;\s]", text):
        raise ValueError(f"'{text}' is not one name or pattern; separate them with blanks")
    return text


def at_least(smallest: int) -> Callable[[str], int]:
    """Return the type of a whole number that is not smaller."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = smallest - 1
        if value < smallest:
            raise ValueError(f"'{text}' is not a whole number of {smallest} or more")
        return value

    return whole_number


def between(low: float, high: float) -> Callable[[str], float]:
    """Return the type of a number in a range."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"'{text}' is not a number from {low:g} to {high:g}")
        return value

    return number


def list_of(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """Return the type of one value, or of several with commas between them."""

    def values(text: str) -> tuple[Any, ...]:
        return tuple(kind(part.strip()) for part in text.split(","))

    return values


def device_name(text: str) -> str:
    """Return the name of a device as it was given, or refuse it."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ValueError(f"'{text}' is none of auto, cpu, cuda, cuda:N")
    return text


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every program has."""

    TITLE: ClassVar[str] = "other"

    verbose: int = option(
        "say more; -v adds Nipype's messages, -vv everything", "-v", default=0, action="count"
    )


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where the input is, and where the output and what is in between go."""

    bids_dir: Path = argument("root folder of a BIDS data set", type=Path)
    output_dir: Path = argument("folder for the results; made if missing", type=Path)
    work_dir: Path | None

    @property
    def reads(self) -> tuple[Path, ...]:
        """The folders into which nothing is written."""
        return (self.bids_dir,)

    @property
    def writes(self) -> dict[str, Path | None]:
        """Every folder that the program writes to, by what it is called; None: not given."""
        return {OUTPUT: self.output_dir, WORK: self.work_dir}


@dataclass(frozen=True, kw_only=True)
class Assets:
    """What simulated brains are made of."""

    TITLE: ClassVar[str] = "what simulated brains are made of"

    anatomy: Path | None = folder_option(
        "folder of whole-head label maps with FreeSurfer labels (default: one head, built from "
        "the MNI tissue maps)"
    )
    lesion_shapes: Path | None = file_option(
        "library of real lesion shapes, .npz (default: procedural shapes)"
    )


@dataclass(frozen=True, kw_only=True)
class Performance:
    """Cores, memory, Nipype plugin and device."""

    TITLE: ClassVar[str] = "performance"

    nprocs: int | None = option(
        "CPU cores to use in all (default: all that this process may use)",
        "--nthreads",
        "--n-cpus",
        metavar="N",
        type=at_least(1),
    )
    omp_nthreads: int | None = option(
        "threads of one step (default: as many as cores, at most 4)", metavar="N", type=at_least(1)
    )
    mem_mb: int | None = option(
        "memory to use in all, in MB (default: 90 %% of what is available)",
        "--mem",
        metavar="MB",
        type=at_least(1),
    )
    use_plugin: Path | None = file_option(
        "Nipype plugin file, YAML or JSON (for example for SLURM); replaces --nprocs and --mem-mb",
        "--nipype-plugin-file",
    )
    device: str = option(
        "where the network computes; auto: CUDA if it works, else the CPU",
        default="auto",
        metavar="{auto,cpu,cuda,cuda:N}",
        type=device_name,
    )


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The tools for skull and bias field."""

    TITLE: ClassVar[str] = "preprocessing"

    skull_strip: str = option(
        "tool; auto: FSL's bet if it is on the PATH, else deepbet. Images whose sidecar says "
        "SkullStripped are never stripped again; with auto, nor are images that come without a "
        "skull, if the sidecar does not say",
        default="auto",
        choices=SKULL_STRIP_CHOICES,
    )
    bet_frac: float = option(
        "fractional intensity threshold of bet, 0 to 1; smaller keeps more",
        default=0.5,
        metavar="F",
        type=between(0, 1),
    )
    bias_correction: str = option(
        "tool for N4; auto: ANTs' N4BiasFieldCorrection if it is on the PATH, else antspyx",
        default="auto",
        choices=BIAS_CORRECTION_CHOICES,
    )


@dataclass(frozen=True, kw_only=True)
class WhichScans:
    """The scans that the app takes."""

    TITLE: ClassVar[str] = "which scans"

    participant_label: tuple[str, ...] | None = option(
        "participants, with or without 'sub-' (default: all)",
        nargs="+",
        metavar="LABEL",
        type=label_of("sub-"),
    )
    session_label: tuple[str, ...] | None = option(
        "sessions, with or without 'ses-' (default: all)",
        nargs="+",
        metavar="LABEL",
        type=label_of("ses-"),
    )
    exclude: tuple[str, ...] = option(
        "scans to leave out, by BIDS name: entities, as sub-01_ses-2, or a pattern, as '*_run-2*'",
        default=(),
        nargs="+",
        metavar="LABEL|PATTERN",
        type=name_or_pattern,
    )
    bids_filter_file: Path | None = file_option(
        'JSON file with pybids filters, as {"flair": {"acquisition": "3d", "run": null}}'
    )
    skip_bids_validation: bool = flag(
        "do not run the BIDS validator on the input", "--skip-bids-validator"
    )
    assume_orientation: str | None = option(
        "of images whose header has no valid qform or sform: the directions of their axes, such as "
        "LAS (left, anterior, superior), with the voxel sizes alone; left and right may then be "
        "wrong (default: such images are refused)",
        metavar="CODES",
        type=str.upper,
        choices=ORIENTATION_CHOICES,
    )


@dataclass(frozen=True, kw_only=True)
class Inference:
    """The network, and what becomes of its output."""

    TITLE: ClassVar[str] = "lesions and diagnosis"

    precision: str = option(
        "arithmetic of the network; auto: bf16 where the hardware has it",
        default="auto",
        choices=PRECISIONS,
    )
    weights: Path | None = file_option(
        "weights of the network, .safetensors (default: those of this version)"
    )
    threshold: float | None = option(
        "lesion probability above which a voxel is lesion, 0.01 to 0.99 "
        "(default: the one that comes with the weights)",
        metavar="P",
        type=between(0.01, 0.99),
    )
    min_lesion_volume: float | None = option(
        "remove connected lesions smaller than this, in mm³ "
        "(default: the one that comes with the weights)",
        metavar="MM3",
        type=between(0, 1e6),
    )
    random_seed: int = option(
        "seed noted in the records; nothing draws random numbers now",
        default=0,
        metavar="N",
        type=at_least(0),
    )
    deterministic: bool = flag(
        "deterministic algorithms only: slower, bit for bit the same on the same machine"
    )


@dataclass(frozen=True, kw_only=True)
class WhatToRun:
    """How much of the work is done."""

    TITLE: ClassVar[str] = "what to run"

    overwrite: bool = flag(
        "run every scan; by default scans are kept that are complete and were made by the same "
        "version, weights and settings"
    )
    dry_run: bool = flag("show what would run, as a table")
    reports_only: bool = flag("only write the participants' reports again, from what is there")
    stop_on_first_crash: bool = flag("start nothing more after the first failure")
    work_dir: Path | None = folder_option(
        "intermediate results; a scan's are removed when it succeeds, and kept when it fails or "
        "with -vv (default: 'work' in the current folder)",
        "-w",
    )
    clean_workdir: bool = flag("before running, remove what earlier runs left in the work folder")
    sloppy: bool = flag("fast and poor: for tests only, never for results")


@dataclass(frozen=True, kw_only=True)
class GroupLevel:
    """What the tables and the page over all participants compare."""

    TITLE: ClassVar[str] = "group level"
    DESCRIPTION: ClassVar[str] = (
        "columns of participants.tsv, sessions.tsv or scans.tsv of the input; the nearest wins"
    )

    diagnosis_column: str = option(
        "known diagnosis, with which the model's is compared", default="diagnosis", metavar="NAME"
    )
    site_column: str = option(
        "site; results are pooled over the sites", default="site", metavar="NAME"
    )
    age_column: str = option("age in years", default="age", metavar="NAME")
    scanner_column: str | None = option(
        "scanner (default: manufacturer, model and field strength from the sidecars)",
        metavar="NAME",
    )
    positive: str | None = option(
        "positive diagnosis of sensitivity and ROC (default: NMOSD, else the last class)",
        metavar="NAME",
    )
    labels: Path | None = folder_option(
        "manual lesion masks to compare with, from the root of the input, for example "
        "derivatives/manual"
    )


@dataclass(frozen=True, kw_only=True)
class AppOptions(
    Options, GroupLevel, WhatToRun, Inference, Preprocessing, Performance, WhichScans, Folders
):
    """The options of the BIDS App."""

    output_dir: Path = argument("folder for the derivatives; made if missing", type=Path)
    analysis_level: str = argument(
        "participant: process scans; group: tables and page over all participants",
        metavar="{participant,group}",
    )


#: What the other level alone uses.
_OF_PARTICIPANTS = {
    *(field.name for kind in (Inference, Preprocessing) for field in fields(kind)),
    "assume_orientation", "clean_workdir", "overwrite", "reports_only", "sloppy",
    "stop_on_first_crash",
}  # fmt: skip
_OF_THE_GROUP = {field.name for field in fields(GroupLevel)}


def without_effect(options: AppOptions) -> str:
    """Name the options that were given and that this level does not use; empty for none."""
    other = _OF_PARTICIPANTS if options.analysis_level == "group" else _OF_THE_GROUP
    given = [
        f"--{field.name.replace('_', '-')}"
        for field in fields(options)
        if field.name in other and getattr(options, field.name) != field.default
    ]
    if not given:
        return ""
    return f"{', '.join(given)}: without effect at the {options.analysis_level} level"
