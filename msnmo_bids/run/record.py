"""What a run leaves beside its scans' derivatives: shared files, reports, record, exit code."""

from __future__ import annotations

import json
import logging
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from msnmo_bids.bids.change_files import paths_of, read_changes, why_not_comparable
from msnmo_bids.bids.dataset import (
    read_record,
    write_citations,
    write_participants,
    write_text,
)
from msnmo_bids.bids.names import io_spec, report_path
from msnmo_bids.bids.records import (
    ScanRecord,
    Status,
    VisitsRecord,
    latest_comparisons,
    latest_records,
    read_runs,
    read_scan,
    with_steps,
)
from msnmo_bids.bids.resume import RAW_IMAGE, diagnosis_path, why_other_image
from msnmo_bids.bids.scans import Scan
from msnmo_bids.errors import ExitCode, disk_error
from msnmo_bids.run.job import Job
from msnmo_bids.run.plan import Plan, possible_comparisons, why_left_out
from msnmo_bids.run.session import Session
from msnmo_bids.workflows.step_names import STOPPED, WAITING

if TYPE_CHECKING:
    from msnmo_bids.workflows.execution import Failure

logger = logging.getLogger(__name__)


def write_configuration(job: Job, command: Sequence[str]) -> None:
    """Write what the run was asked to do and where it runs (``config.toml``)."""
    resources, metadata = job.resources, job.plan.metadata
    content = {
        "version": job.record.version,
        "run_id": job.record.run_id,
        "started": job.record.started,
        "command": command,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "executable": sys.executable,
        "options": asdict(job.options),
        "settings": asdict(job.plan.settings),
        "resources": {
            "plugin": resources.plugin,
            "omp_nthreads": resources.omp_nthreads,
            "work_dir": job.work_dir,
            **{
                f"plugin_{name}": value
                for name, value in resources.plugin_args.items()
                if isinstance(value, str | int | float)
            },
        },
        "weights": {
            "file": str(job.plan.weights),
            "name": metadata.name,
            "version": metadata.version,
            "sha256": metadata.sha256,
        },
    }
    write_text(job.record.folder / "config.toml", to_toml(content))


def finish(job: Job, session: Session, *, ended_by: ExitCode | None = None) -> None:
    """Write the record of a run; say what failed. The session gets counts and exit code.

    `ended_by` says why the run ended before its end (interrupted, an unexpected error). Then scans
    without result have not failed: they are pending, the next run processes them and writes their
    reports.
    """
    scans = job.plan.selection.scans
    _settle(job, scans, ended=ended_by is not None)
    for failure in (*job.failures, *job.comparison_failures):
        if not failure.prefix or failure in job.comparison_failures:
            where = f"{failure.prefix}: " if failure.prefix else ""
            logger.error("%s%s: %s. %s", where, failure.step, failure.message, failure.remedy or "")
            job.codes.append(failure.exit_code)
    if ended_by is None:
        write_participants(job.output_dir)
        write_methods(job.output_dir)
    records = [job.outcomes[scan.relative] for scan in scans]
    total = len(records)
    session.ok = sum(record.status == Status.COMPLETE for record in records)
    session.failed = total - session.ok
    session.exit_code = _exit_code_of(job.codes) if ended_by is None else ended_by
    job.record.scans = records
    job.record.write(session.exit_code)
    for record in records:
        if record.status == Status.FAILED:
            remedy = f". {record.remedy}" if record.remedy else ""
            line = f"{record.relative}: {record.reason}{remedy}"
            logger.error("%s", " ".join(line.split()))
    job.tidy()
    if session.failed:
        logger.info("Log and crash files: %s", job.record.folder)
    logger.info("%d of %d scans have their derivatives in %s", session.ok, total, job.output_dir)


def close_batch(job: Job, session: Session, subjects: Sequence[str]) -> None:
    """Take down what became of the scans of participants, and write their reports.

    A report that cannot be written must not cost the record of a run that took a night.
    """
    scans = [scan for scan in job.plan.selection.scans if scan.subject in subjects]
    _settle(job, scans)
    changed = job.plan.touched | {*stale_reports(job.output_dir, scans)}
    try:
        write_reports(
            job.output_dir,
            job.plan,
            subjects=[name for name in dict.fromkeys(s.subject for s in scans) if name in changed],
            now=[job.outcomes[scan.relative] for scan in scans],
            compared=job.record.comparisons,
        )
    except Exception as error:
        problem = disk_error(error) or f"{error}. Trace: {session.write_crash_file()}"
        logger.error(
            "The reports could not be written: %s. The derivatives are complete, try "
            "--reports-only",
            problem,
        )
        job.codes.append(ExitCode.FAILURE)


def _settle(job: Job, scans: Iterable[Scan], *, ended: bool = False) -> None:
    """Take down what became of scans, unless that was done."""
    by_prefix = {failure.prefix: failure for failure in job.failures}
    for scan in scans:
        if scan.relative not in job.outcomes:
            known = by_prefix.get(scan.prefix)
            job.outcomes[scan.relative] = _outcome(job, scan, known, ended=ended)


def _outcome(job: Job, scan: Scan, failure: Failure | None, *, ended: bool) -> ScanRecord:
    """Return what became of a scan; the exit code of its failure goes to the job."""
    reason = job.why_incomplete(scan) if scan.relative in job.plan.reasons else None
    if reason is None:
        return ScanRecord.of(scan, Status.COMPLETE, steps=job.steps_of(scan))
    if failure is not None:
        problem = job.problem_of(failure)
        problem["message"] = problem["message"].removeprefix(f"{scan.path}: ")
        if failure.step != WAITING:
            job.codes.append(failure.exit_code)
    elif ended:
        return ScanRecord.of(scan, Status.PENDING, message=reason)
    elif job.stopped:
        problem = {"step": WAITING, "message": STOPPED, "remedy": "Run again"}
    else:
        message = f"no derivatives at the end of the run: {reason}"
        problem = {"step": "workflow", "message": message, "remedy": "Run again"}
        job.codes.append(ExitCode.FAILURE)
    return ScanRecord.of(scan, Status.FAILED, steps=job.steps_of(scan), **problem)


def _exit_code_of(codes: Sequence[ExitCode]) -> ExitCode:
    """Return the exit code of failures: what those that are not bad data have in common, or 1."""
    others = {*codes} - {ExitCode.BAD_DATA} or {*codes} or {ExitCode.OK}
    return others.pop() if len(others) == 1 else ExitCode.FAILURE


def to_toml(content: Mapping[str, Any]) -> str:
    """Return a TOML document of texts, numbers, truth values, paths, lists and mappings of these.

    None has no place in TOML: such keys are left out.
    """
    plain = json.loads(
        json.dumps(content, default=str),
        object_hook=lambda table: {key: it for key, it in table.items() if it is not None},
    )
    # Names of files may hold bytes that are not UTF-8 (surrogates here).
    return tomli_w.dumps(plain).encode(errors="replace").decode()


def write_reports(
    output_dir: Path,
    plan: Plan,
    *,
    subjects: Iterable[str],
    now: Sequence[ScanRecord] = (),
    compared: Sequence[dict[str, Any]] = (),
) -> None:
    """Write the participants' reports, from what is on disk and what failed.

    `now` and `compared` are what this run says of its scans and comparisons, which no ``run.json``
    holds yet.
    """
    from msnmo_bids.reports.participant import write_participant_report

    runs = read_runs(output_dir)
    latest = latest_records(runs)
    latest |= {record.relative: with_steps(record, latest) for record in now}
    latest_compared = latest_comparisons([*runs, {"Comparisons": list(compared)}])
    for subject in subjects:
        scans = [scan for scan in plan.selection.available if scan.subject == subject]
        write_participant_report(
            output_dir,
            subject,
            [standing(scan, output_dir, latest) for scan in scans],
            changes=_changes_of_visits(scans, output_dir, latest_compared),
            left_out=why_left_out(scans, output_dir),
        )


def write_methods(output_dir: Path) -> None:
    """Write how all that lies in the output folder was made, whichever run made it."""
    kinds = (io_spec()["derivatives"]["diagnosis"], io_spec()["changes"]["both"]["record"])
    records = [
        read_record(path) or {}
        for kind in kinds
        for path in sorted(output_dir.glob(f"sub-*/**/*_{kind['suffix']}"))
    ]
    texts = [record.get("Methods") for record in records]
    write_citations(output_dir, [text for text in texts if isinstance(text, str)])


def standing(scan: Scan, output_dir: Path, latest: Mapping[str, ScanRecord]) -> ScanRecord:
    """Return how a scan stands now.

    It is pending where the results are those of another raw image than the one that is there now.
    `latest` is from :func:`msnmo_bids.bids.records.latest_records`.
    """
    known = replace(latest.get(scan.relative, ScanRecord.of(scan)), notes=tuple(scan.notes))
    record = read_scan(output_dir, known)
    if record.status != Status.COMPLETE:
        return record
    reason = why_other_image(scan, record.diagnosis.get(RAW_IMAGE))
    return record if reason is None else replace(
        record, status=Status.PENDING, message=reason,
        remedy="Run the participant level again", diagnosis={},
    )  # fmt: skip


def _changes_of_visits(
    scans: Sequence[Scan], output_dir: Path, latest: Mapping[str, Mapping[str, Any]]
) -> list[VisitsRecord]:
    """Return what a report says of a participant's comparisons; `latest` are those of run.json."""
    found = []
    for comparison in possible_comparisons(scans, output_dir):
        entry = latest.get(comparison.name, {})
        problem = why_not_comparable(comparison, output_dir) or ""
        if not problem and entry.get("Status") == Status.FAILED:
            problem = ": ".join(filter(None, (entry.get("Step"), entry.get("Message"))))
        found.append(
            VisitsRecord(
                earlier=comparison.earlier.session or "",
                later=comparison.later.session or "",
                name=comparison.name,
                record=read_changes(comparison, output_dir) or {},
                table=output_dir / paths_of(comparison)["table"],
                figure=output_dir / paths_of(comparison)["figure"],
                problem=problem,
            )
        )
    return found


def stale_reports(output_dir: Path, scans: Sequence[Scan]) -> list[str]:
    """Return the participants of scans whose report is missing or older than what it reports."""
    told = [(scan.subject, diagnosis_path(scan, output_dir)) for scan in scans]
    told += [
        (one.subject, output_dir / paths_of(one)["record"])
        for one in possible_comparisons(scans, output_dir)
    ]
    written = {subject: _changed(output_dir / report_path(subject)) for subject, _ in told}
    newest = dict.fromkeys(written, 0)
    for subject, record in told:
        newest[subject] = max(newest[subject], _changed(record))
    return [name for name in newest if not written[name] or newest[name] > written[name]]


def _changed(file: Path) -> int:
    """Return when a file was changed (ns); 0 where there is none."""
    return file.stat().st_mtime_ns if file.is_file() else 0
