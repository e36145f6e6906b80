"""From the command line to what will be done: weights, settings, scans to run and to compare."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msnmo_bids.bids.change_files import is_compared, remove_stale, why_not_comparable
from msnmo_bids.bids.comparisons import Comparison, comparisons, left_out
from msnmo_bids.bids.resume import Expected, diagnosis_path, why_incomplete
from msnmo_bids.bids.scans import Scan, Selection, find_scans, read_filters
from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.model.device import probe
from msnmo_bids.run.options import AppOptions, Preprocessing, WhichScans
from msnmo_bids.settings import MACHINE_SETTINGS, ProcessingSettings
from msnmo_bids.text import aligned, merged, one_line
from msnmo_bids.version import get_version

if TYPE_CHECKING:
    from msnmo_bids.model.weights import WeightsMetadata

logger = logging.getLogger(__name__)

BET_PROGRAM = "bet"
N4_PROGRAM = "N4BiasFieldCorrection"


@dataclass(frozen=True)
class Plan:
    """What a participant run will do."""

    selection: Selection  #: Scans and participants selected.
    #: With tools resolved; device and precision only after :func:`with_machine`.
    settings: ProcessingSettings
    weights: Path  #: ``NAME.safetensors``.
    metadata: WeightsMetadata  #: What travels with them.
    expected: Expected  #: What complete scans were made by.
    reasons: dict[str, str]  #: Scans to run (by relative path) and why.
    #: Consecutive visits to compare when their scans are done.
    comparisons: tuple[Comparison, ...] = ()
    gpus: tuple[int, ...] = ()  #: The GPUs that the scans are spread over, known after the same.

    @property
    def to_run(self) -> list[Scan]:
        """The scans to run."""
        return [scan for scan in self.selection.scans if scan.relative in self.reasons]

    @property
    def complete(self) -> list[Scan]:
        """The scans that are complete already."""
        return [scan for scan in self.selection.scans if scan.relative not in self.reasons]

    @property
    def touched(self) -> set[str]:
        """The participants of whom something is to be done."""
        return {scan.subject for scan in self.to_run} | {one.subject for one in self.comparisons}

    @property
    def subjects(self) -> list[str]:
        """The participants of the scans selected, in order."""
        return list(dict.fromkeys(scan.subject for scan in self.selection.scans))


def select(bids_dir: Path, asked: WhichScans) -> Selection:
    """Find the scans that the command line asks for, at least one; name participants without any.

    Raises
    ------
    MsnmoError
        As :func:`msnmo_bids.bids.scans.find_scans` and :func:`~msnmo_bids.bids.scans.read_filters`.
    """
    selection = find_scans(
        bids_dir,
        participants=asked.participant_label,
        sessions=asked.session_label,
        filters=read_filters(asked.bids_filter_file) if asked.bids_filter_file else None,
    )
    if without := [f"sub-{label}" for label in selection.without_flair]:
        count = f"{len(without)} of {len(selection.subjects)} participants"
        logger.warning("No FLAIR for %s: %s", count, ", ".join(without))
    return _without(selection, asked.exclude)


def _without(selection: Selection, patterns: Sequence[str]) -> Selection:
    """Leave out the scans that ``--exclude`` names; say which, and which pattern named none."""
    excluded: dict[str, str] = {}
    for pattern in patterns:
        found = [scan.relative for scan in selection.available if _matches(scan, pattern)]
        excluded |= dict.fromkeys(found, pattern)
        if not found:
            logger.warning("--exclude %s: no scan has such a name", pattern)
    for scan, pattern in sorted(excluded.items()):
        logger.info("%s: left out (--exclude %s)", scan, pattern)
    left = tuple(scan for scan in selection.scans if scan.relative not in excluded)
    if not left:
        raise MsnmoError(
            "--exclude leaves no scan",
            remedy="Run with --dry-run and fewer of them to see what there is",
            exit_code=ExitCode.NOTHING_SELECTED,
        )
    available = tuple(scan for scan in selection.available if scan.relative not in excluded)
    kept = {*selection.without_flair, *(scan.subject for scan in available)}
    subjects = tuple(subject for subject in selection.subjects if subject in kept)
    return replace(selection, scans=left, available=available, subjects=subjects)


def _matches(scan: Scan, pattern: str) -> bool:
    """Say whether a scan has all entities that are named, or its name fits a pattern."""
    name = pattern.removesuffix(".gz").removesuffix(".nii").removesuffix("_FLAIR")
    if any(character in name for character in "*?["):
        return fnmatchcase(scan.prefix, name)
    wanted = {part if "-" in part else f"sub-{part}" for part in name.split("_")}
    return wanted <= set(scan.prefix.split("_"))


def make_plan(options: AppOptions) -> Plan:
    """Decide what to run; nothing heavy is imported and nothing is written.

    Settings have ``device`` and ``precision`` as on the command line (maybe ``auto``).

    Raises
    ------
    MsnmoError
        If a label, filter, weights file or tool that was asked for is missing.
    """
    from msnmo_bids.model.weights import SHIPPED_WEIGHTS, find_weights

    selection = select(options.bids_dir, options)
    weights, metadata = find_weights(options.weights or SHIPPED_WEIGHTS)
    settings = _resolve_settings(options, metadata)
    left_open = tuple(name for name in MACHINE_SETTINGS if getattr(options, name) == "auto")
    expected = Expected(settings, get_version(), metadata.fingerprint, left_open)
    reasons: dict[str, str] = {}
    for scan in selection.scans:
        reason = why_incomplete(scan, options.output_dir, expected)
        if reason or options.overwrite:
            reasons[scan.relative] = reason or "--overwrite"
    due = due_comparisons(selection.available, set(reasons), options.output_dir)
    for line in merged(note for comparison in due for note in comparison.notes):
        logger.warning("%s", line)
    return Plan(selection, settings, weights, metadata, expected, reasons, due)


def _resolve_settings(options: AppOptions, metadata: WeightsMetadata) -> ProcessingSettings:
    """Return the settings by command line, PATH and weights."""
    threshold, least_volume = options.threshold, options.min_lesion_volume
    return ProcessingSettings(
        **choose_tools(options),
        assume_orientation=options.assume_orientation,
        device=options.device,
        precision=options.precision,
        threshold=metadata.threshold if threshold is None else threshold,
        min_lesion_volume=metadata.min_lesion_volume if least_volume is None else least_volume,
        random_seed=options.random_seed,
        deterministic=options.deterministic,
        sloppy=options.sloppy,
    )


def choose_tools(options: Preprocessing) -> dict[str, Any]:
    """Return the settings of skull and bias field; ``auto`` looks for programs on the PATH.

    Raises
    ------
    MsnmoError
        If a program that was asked for is not on the PATH (64).
    """
    skull, bias = options.skull_strip, options.bias_correction
    stripper = _tool(skull, "bet", BET_PROGRAM, "deepbet", "--skull-strip")
    if stripper != "bet" and options.bet_frac != ProcessingSettings.bet_frac:
        logger.warning("--bet-frac: without effect, the skull is stripped by %s", stripper)
    return {
        "skull_strip": stripper,
        "bias_correction": _tool(bias, "ants", N4_PROGRAM, "antspyx", "--bias-correction"),
        "bet_frac": options.bet_frac if stripper == "bet" else ProcessingSettings.bet_frac,
        "detect_stripped": skull == "auto",
    }


def _tool(choice: str, stock: str, program: str, own: str, option: str) -> str:
    """Resolve ``auto``, and refuse a tool whose program is not there."""
    there = shutil.which(program) is not None
    if choice == "auto":
        return stock if there else own
    if choice == stock and not there:
        raise UsageError(
            f"{option} {stock}: the program '{program}' is not on the PATH",
            remedy=f"Install it, use the container, or choose {option} {own}",
        )
    return choice


def with_machine(plan: Plan) -> Plan:
    """Return the plan with device, precision and GPUs probed.

    Raises
    ------
    MsnmoError
        If a CUDA device was asked for that does not compute.
    """
    device, precision = plan.settings.device, plan.settings.precision
    gpus: tuple[int, ...] = ()
    if (device, precision) != ("cpu", "fp32"):
        device, precision, gpus, warnings = probe(device, precision)
        for warning in warnings:
            logger.warning("%s", warning)
        where = f"{len(gpus)} GPUs" if len(gpus) > 1 else device
        logger.info("The network computes on %s in %s", where, precision)
    settings = replace(plan.settings, device=device, precision=precision)
    return replace(plan, settings=settings, gpus=gpus)


def method() -> dict[str, Any]:
    """Return what a comparison depends on besides its scans: version and limits."""
    from msnmo_bids.visits.halfway import SPACING_MM
    from msnmo_bids.visits.lesion_changes import DEFAULT_RULE

    return {"version": get_version(), "spacing": SPACING_MM, **DEFAULT_RULE.record()}


def possible_comparisons(scans: Iterable[Scan], output_dir: Path) -> list[Comparison]:
    """Return the comparisons of the scans that have derivatives, in order, passing over others."""
    return comparisons(scan for scan in scans if diagnosis_path(scan, output_dir).is_file())


def why_left_out(scans: Sequence[Scan], output_dir: Path) -> list[str]:
    """Name the visits and scans that are in no comparison, and why; one line per kind."""
    return merged(left_out(scans, possible_comparisons(scans, output_dir)))


def due_comparisons(
    scans: Sequence[Scan], running: Container[str], output_dir: Path
) -> tuple[Comparison, ...]:
    """Return the comparisons to make when some scans have been run.

    `scans` are all of the participants in question, `running` the relative paths of those to run.
    """

    def runs(scan: Scan) -> bool:
        return scan.relative in running

    there = [scan for scan in scans if runs(scan) or diagnosis_path(scan, output_dir).is_file()]
    limits = method()
    return tuple(
        comparison
        for comparison in comparisons(there)
        if runs(comparison.earlier)
        or runs(comparison.later)
        or (
            why_not_comparable(comparison, output_dir) is None
            and not is_compared(comparison, output_dir, limits)
        )
    )


def tidy_comparisons(subjects: Iterable[str], scans: Iterable[Scan], output_dir: Path) -> None:
    """Remove what earlier runs left of comparisons that are not complete now.

    Those of `scans` are kept if they are complete.
    """
    limits = method()
    complete = [
        comparison
        for comparison in possible_comparisons(scans, output_dir)
        if why_not_comparable(comparison, output_dir) is None
        and is_compared(comparison, output_dir, limits)
    ]
    for subject in subjects:
        own = [comparison for comparison in complete if comparison.subject == subject]
        remove_stale(subject, own, output_dir)


def plan_table(plan: Plan) -> str:
    """Return the plan for ``--dry-run``: a line per scan, what happens and why; the settings."""
    rows = [("scan", "action", "why", "skull")]
    for scan in plan.selection.scans:
        reason = plan.reasons.get(scan.relative)
        action = "keep" if reason is None else "run"
        skull = "removed already" if scan.skull_stripped else plan.settings.skull_strip
        rows.append((scan.relative, action, reason or "complete", skull))
    settings = plan.settings
    return "\n".join(
        [
            *aligned(rows),
            "",
            f"{len(plan.reasons)} of {len(plan.selection.scans)} scans would run",
            *(
                one_line(f"{one.name}: {_visits(one)} would be compared")
                for one in plan.comparisons
            ),
            f"skull stripping: {settings.skull_strip}; bias correction: {settings.bias_correction}",
            f"device: {settings.device}; precision: {settings.precision}",
            f"threshold: {settings.threshold:g}; "
            f"smallest lesion: {settings.min_lesion_volume:g} mm³",
            f"weights: {plan.metadata.name} {plan.metadata.version} ({plan.weights})",
        ]
    )


def _visits(comparison: Comparison) -> str:
    order = f"order by {comparison.order_by}"
    return f"ses-{comparison.earlier.session} and ses-{comparison.later.session} ({order})"
