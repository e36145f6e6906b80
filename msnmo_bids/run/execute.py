"""The participant level: from the options to derivatives, reports and the run's record."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from msnmo_bids.bids.change_files import fingerprint, why_not_comparable
from msnmo_bids.bids.dataset import shared_files_complete, write_shared_files
from msnmo_bids.bids.records import NOT_PROCESSED, RunRecord, Status, comparison_entry
from msnmo_bids.bids.resume import glance, remove_old_files
from msnmo_bids.bids.scans import Scan
from msnmo_bids.run.job import WAIT_S, Claims, Job
from msnmo_bids.run.options import AppOptions, without_effect
from msnmo_bids.run.plan import (
    Plan,
    due_comparisons,
    make_plan,
    method,
    plan_table,
    possible_comparisons,
    tidy_comparisons,
    why_left_out,
    with_machine,
)
from msnmo_bids.run.preflight import (
    check_folders,
    check_same_dataset,
    check_within,
    left_over,
    validate_bids,
    work_folder,
)
from msnmo_bids.run.record import (
    close_batch,
    finish,
    stale_reports,
    write_configuration,
    write_methods,
    write_reports,
)
from msnmo_bids.run.resources import check_plugin, choose_resources, set_environment
from msnmo_bids.run.session import Progress, Session, exit_code_for, route_nipype
from msnmo_bids.text import Note, listed, merged
from msnmo_bids.version import get_version
from msnmo_bids.workflows.resources import start_fork_server
from msnmo_bids.workflows.step_names import LAST_NODE, LAST_NODE_OF_VISITS

if TYPE_CHECKING:
    from nipype.pipeline.engine import Workflow

    from msnmo_bids.workflows.execution import EventCallback, Failure, UsageCallback

logger = logging.getLogger(__name__)


def run_participant(options: AppOptions, session: Session) -> None:
    """Run the participant level; the session gets log, counts and exit code."""
    if unused := without_effect(options):
        logger.warning("%s", unused)
    check_folders(options)
    plan = make_plan(options)
    if not (options.overwrite or options.reports_only):
        check_same_dataset(options.bids_dir, options.output_dir, plan.to_run)
    check_within(options.output_dir, ("logs", *(scan.folder for scan in plan.to_run)))
    for line in merged(left_over(options.bids_dir, options.output_dir, plan.selection.scans)):
        logger.warning("%s", line)
    if options.dry_run:
        _validate(options, plan)
        logger.info("%s", plan_table(plan))
        return
    if options.reports_only:
        write_shared_files(options.output_dir, options.bids_dir, plan.metadata.class_names)
        write_reports(options.output_dir, plan, subjects=plan.subjects)
        write_methods(options.output_dir)
        if plan.to_run:
            logger.warning("%d scans are not complete: the reports say so", len(plan.to_run))
        logger.info("Reports written: %d", len(plan.subjects))
    elif plan.to_run or plan.comparisons:
        process(options, plan, session)
        return
    else:
        _nothing_to_do(options, plan)
    session.ok = len(plan.complete)


def _validate(options: AppOptions, plan: Plan) -> None:
    """Validate the input where something of it is to be processed and the user did not object."""
    if plan.to_run and not options.skip_bids_validation:
        validate_bids(options.bids_dir, options.participant_label)


def _nothing_to_do(options: AppOptions, plan: Plan) -> None:
    """Say that all is complete; replace what a killed run did not come to write."""
    count = len(plan.complete)
    if not shared_files_complete(options.output_dir):
        write_shared_files(options.output_dir, options.bids_dir, plan.metadata.class_names)
    if stale := stale_reports(options.output_dir, plan.complete):
        write_reports(options.output_dir, plan, subjects=stale)
        write_methods(options.output_dir)
    logger.info("Nothing to do: %d of %d scans complete", count, count)


def process(options: AppOptions, plan: Plan, session: Session) -> None:
    """Process the scans of a plan; the session gets log, counts and exit code.

    The plan has at least one scan or comparison to run. What ends the run before its end is raised
    after the record has been written.
    """
    resources = choose_resources(options)
    work_dir = work_folder(options)
    check_plugin(resources, work_dir)
    set_environment(work_dir)
    if resources.plugin == "MultiProc":  # its imports take as long as what comes before the work
        tools = (plan.settings.skull_strip, plan.settings.bias_correction)
        start_fork_server(tools if plan.to_run else (), resources.omp_nthreads)
    import msnmo_bids.workflows.execution
    import msnmo_bids.workflows.scan  # noqa: F401 - they take time, and the server's go on beside

    _validate(options, plan)
    plan = with_machine(plan)
    record = RunRecord(options.output_dir.absolute(), get_version(), asdict(plan.settings))
    record.no_flair = list(plan.selection.without_flair)
    claims = Claims(record.output_dir / "logs", work_dir)
    job = Job(options, plan, record, work_dir, resources, claims)
    session.open_log(record.folder)
    write_configuration(job, session.command)
    write_shared_files(options.output_dir, options.bids_dir, plan.metadata.class_names)
    if options.clean_workdir:
        job.clean_work()
    total, count = len(plan.selection.scans), len(plan.to_run)
    counts = f"{count} of {total} scans to process, {total - count} complete already"
    logger.info("%s; log: %s", counts, record.folder)
    again = {scan: reason for scan, reason in plan.reasons.items() if reason != NOT_PROCESSED}
    for line in merged(Note(reason, scan) for scan, reason in again.items()):
        logger.info("Again: %s", line)
    session.ok, session.failed = total - count, count
    try:
        _process_participants(job, session)
    except BaseException as error:
        finish(job, session, ended_by=exit_code_for(error))
        raise
    finish(job, session)


def _process_participants(job: Job, session: Session) -> None:
    """Process participants batch by batch; wait for those that another run works on."""
    route_nipype(job.options.verbose)
    progress = Progress(job.scan_names)
    busy = job.plan.touched
    left, said = list(job.plan.selection.subjects), False
    while left and not job.stopped:
        mine, held = job.claim(left)
        left = [name for name in left if name not in mine and (name in busy or name not in held)]
        if mine:
            try:
                _process_batch(job, session, progress, mine)
            finally:
                job.release(mine)
        elif left:
            if not said:
                logger.info(
                    "Another run is at work on %d participants: this one waits for it (%s)",
                    len(left),
                    listed(f"sub-{label}" for label in left),
                )
            said = True
            time.sleep(WAIT_S)
    for line in why_left_out(job.plan.selection.scans, job.output_dir):
        logger.warning("%s", line)


def _process_batch(job: Job, session: Session, progress: Progress, subjects: Sequence[str]) -> None:
    """Process the scans of some participants, compare their visits and write their reports."""
    own = [scan for scan in job.plan.selection.available if scan.subject in subjects]
    due = [scan for scan in job.plan.to_run if scan.subject in subjects]
    scans = [s for s in due if job.options.overwrite or job.why_incomplete(s) is not None]
    # What is about to be replaced must not stay behind in a comparison.
    tidy_comparisons(subjects, [scan for scan in own if scan not in scans], job.output_dir)
    if scans:
        session.console.progress = progress
        try:
            _process_scans(job, scans, progress)
        finally:
            progress.clear()
            session.console.progress = None
    if not job.stopped:
        _compare_visits(job, subjects, own)
    close_batch(job, session, subjects)


def _process_scans(job: Job, scans: Sequence[Scan], progress: Progress) -> None:
    """Run the workflow over scans; failures are gathered in the job."""
    from msnmo_bids.workflows.scan import init_msnmo_wf

    workflow = init_msnmo_wf(
        scans=scans,
        settings=job.plan.settings,
        weights=job.plan.weights,
        metadata=job.plan.metadata,
        output_dir=job.output_dir,
        work_dir=job.work_dir,
        omp_nthreads=job.resources.omp_nthreads,
    )
    for scan in scans:  # not before the workflow stands
        remove_old_files(scan, job.output_dir)
    made_by = job.plan.settings.fingerprint(job.record.version, job.plan.metadata.fingerprint)
    stamps = {scan.prefix: json.dumps([made_by, glance(scan)]) for scan in scans}
    if job.options.overwrite:
        stamps = {}
    _run(job, workflow, LAST_NODE, stamps, job.failures, progress.on_event, job.take_usage)


def _compare_visits(job: Job, subjects: Sequence[str], scans: Sequence[Scan]) -> None:
    """Compare the visits of participants; failures are gathered in the job."""
    tidy_comparisons(subjects, scans, job.output_dir)
    if missing := due_comparisons(scans, (), job.output_dir):
        from msnmo_bids.workflows.visits import init_visits_wf

        logger.info("%d comparisons of visits to make", len(missing))
        workflow = init_visits_wf(
            comparisons=missing, output_dir=job.output_dir, work_dir=job.work_dir, method=method()
        )
        stamps = {one.name: fingerprint(one, job.output_dir, method()) for one in missing}
        _run(job, workflow, LAST_NODE_OF_VISITS, stamps, job.comparison_failures)
    failed = {failure.prefix: failure for failure in job.comparison_failures}
    for comparison in possible_comparisons(scans, job.output_dir):
        if reason := why_not_comparable(comparison, job.output_dir):
            logger.warning(
                "%s: not compared with the visit before (%s). Run the participant again without "
                "filters, or correct the data set", comparison.later.relative, reason,
            )  # fmt: skip
            continue
        name = comparison.name
        status, problem = Status.COMPLETE, {}
        if name in failed:
            status, problem = Status.FAILED, job.problem_of(failed[name])
        job.record.comparisons.append(comparison_entry(name, status, **problem))


def _run(
    job: Job,
    workflow: Workflow,
    last_node: str,
    stamps: Mapping[str, str],
    failures: list[Failure],
    on_event: EventCallback | None = None,
    on_usage: UsageCallback | None = None,
) -> None:
    """Run a workflow, each item's work folder removed when it is done; add to its failures."""
    from msnmo_bids.workflows.execution import run_workflow

    failures += run_workflow(
        workflow,
        plugin=job.resources.plugin,
        plugin_args=job.plugin_args(),
        on_event=on_event,
        on_usage=on_usage,
        stop_on_first_crash=job.options.stop_on_first_crash,
        crash_dir=job.record.folder,
        last_node=last_node,
        stamps=stamps,
        keep=job.options.verbose >= 2,
        so_far=failures,
    )
