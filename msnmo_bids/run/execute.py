"""The participant level: from the options to derivatives, reports and the run's record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from msnmo_bids.bids.changes import why_not_comparable
from msnmo_bids.bids.dataset import shared_files_complete
from msnmo_bids.bids.records import Status
from msnmo_bids.bids.resume import remove_old_files
from msnmo_bids.bids.runs import RunRecord, comparison_entry
from msnmo_bids.bids.scans import Scan, select_subjects
from msnmo_bids.bids.validator import validate_bids
from msnmo_bids.bids.visits import Comparison
from msnmo_bids.run.checks import check_folders, check_within, work_folder
from msnmo_bids.run.job import WORKFLOWS, Job
from msnmo_bids.run.options import AppOptions
from msnmo_bids.run.plan import Plan, make_plan, plan_table, with_machine
from msnmo_bids.run.progress import Progress
from msnmo_bids.run.record import finish, write_configuration
from msnmo_bids.run.reports import stale_reports, write_reports, write_shared
from msnmo_bids.run.resources import check_plugin, choose_resources, set_environment
from msnmo_bids.run.session import Session, exit_code_for, route_nipype
from msnmo_bids.run.visits import (
    due_comparisons,
    method,
    possible_comparisons,
    tidy_comparisons,
    why_left_out,
)
from msnmo_bids.version import get_version

if TYPE_CHECKING:
    from nipype.pipeline.engine import Workflow

    from msnmo_bids.workflows.execution import Failure

logger = logging.getLogger(__name__)

T = TypeVar("T", Scan, Comparison)


def run_participant(options: AppOptions, session: Session) -> None:
    """Run the participant level; the session gets log, counts and exit code.

    Raises
    ------
    MsnmoError
        If the run cannot begin.
    """
    check_folders(options)
    select_subjects(options.bids_dir, options.participant_label)
    plan = make_plan(options)
    check_within(options.output_dir, ("logs", *(scan.folder for scan in plan.to_run)))
    if plan.to_run and not options.skip_bids_validation and not options.reports_only:
        validate_bids(options.bids_dir, options.participant_label)
    if options.dry_run:
        logger.info("%s", plan_table(plan))
        return
    if options.reports_only:
        write_shared(options.bids_dir, options.output_dir, plan)
        write_reports(options.output_dir, plan, subjects=plan.subjects)
        if plan.to_run:
            logger.warning("%d scans are not complete: the reports say so", len(plan.to_run))
        logger.info("Reports written: %d", len(plan.subjects))
    elif plan.to_run or plan.comparisons:
        process(options, with_machine(plan), session)
        return
    else:
        _nothing_to_do(options, plan)
    session.ok = len(plan.complete)


def _nothing_to_do(options: AppOptions, plan: Plan) -> None:
    """Say that all is complete; replace what a killed run did not come to write."""
    count = len(plan.complete)
    if not shared_files_complete(options.output_dir):
        write_shared(options.bids_dir, options.output_dir, plan)
    if stale := stale_reports(options.output_dir, plan.complete):
        write_reports(options.output_dir, plan, subjects=stale)
    logger.info("Nothing to do: %d of %d scans complete", count, count)


def process(options: AppOptions, plan: Plan, session: Session) -> None:
    """Process the scans of a plan; the session gets log, counts and exit code.

    Parameters
    ----------
    plan : Plan
        With at least one scan or comparison to run, device and precision resolved.

    Raises
    ------
    BaseException
        What ended the run before its end, after its record has been written.
    """
    resources = choose_resources(options)
    work_dir = work_folder(options)
    check_plugin(resources, work_dir)
    record = RunRecord(options.output_dir.absolute(), get_version(), asdict(plan.settings))
    record.no_flair = list(plan.selection.without_flair)
    job = Job(options, plan, record, work_dir, resources)
    session.open_log(record.folder)
    write_configuration(job, session.command)
    write_shared(options.bids_dir, options.output_dir, plan)
    set_environment(work_dir)
    if options.clean_workdir:
        job.clean_work()
    total, count = len(plan.selection.scans), len(plan.to_run)
    logger.info(
        "%d of %d scans to process, %d complete already; log: %s",
        count, total, total - count, record.folder,
    )  # fmt: skip
    session.ok, session.failed = total - count, count
    # What is about to be replaced must not stay behind in a comparison.
    running = {scan.relative for scan in plan.to_run}
    kept = [scan for scan in plan.selection.available if scan.relative not in running]
    try:
        tidy_comparisons(plan.selection.subjects, kept, job.output_dir)
        _process_scans(job, session)
        if not job.stopped:
            _compare_visits(job)
    except BaseException as error:
        finish(job, session, ended_by=exit_code_for(error))
        raise
    finish(job, session)


def _process_scans(job: Job, session: Session) -> None:
    """Run the workflow over the scans; failures are gathered in the job."""
    from msnmo_bids.workflows.base import init_msnmo_wf
    from msnmo_bids.workflows.steps import LAST_NODE, step_name

    route_nipype(job.options.verbose)
    names = {f"scan_{scan.node_name}_wf": scan.prefix for scan in job.plan.to_run}
    progress = Progress(names, last_node=LAST_NODE, step_name=step_name)
    common: dict[str, Any] = {
        "settings": job.plan.settings,
        "weights": job.plan.weights,
        "output_dir": job.output_dir,
        "work_dir": job.work_dir,
        "omp_nthreads": job.resources.omp_nthreads,
        "name": WORKFLOWS[0],
    }

    def workflow_of(batch: Sequence[Scan]) -> Workflow:
        for scan in batch:
            remove_old_files(scan, job.output_dir)
        return init_msnmo_wf(scans=batch, **common)

    session.console.progress = progress
    try:
        _run_batches(job, job.plan.to_run, workflow_of, LAST_NODE, job.failures, progress.on_event)
    finally:
        progress.clear()
        session.console.progress = None


def _compare_visits(job: Job) -> None:
    """Compare the visits of all participants of a run; failures are gathered in the job."""
    scans = job.plan.selection.available
    tidy_comparisons(job.plan.selection.subjects, scans, job.output_dir)
    if missing := due_comparisons(scans, (), job.output_dir):
        from msnmo_bids.workflows.steps import LAST_NODE_OF_VISITS

        logger.info("%d comparisons of visits to make", len(missing))
        _run_batches(job, missing, lambda batch: _visits_workflow(job, batch),
                     LAST_NODE_OF_VISITS, job.comparison_failures)  # fmt: skip
    for line in why_left_out(job.plan.selection.scans, job.output_dir):
        logger.warning("%s", line)
    failed = {failure.prefix: failure for failure in job.comparison_failures}
    for comparison in possible_comparisons(scans, job.output_dir):
        if reason := why_not_comparable(comparison, job.output_dir):
            logger.warning("%s: not compared with the visit before (%s). Run the participant "
                           "again without filters", comparison.later.relative, reason)  # fmt: skip
            continue
        name = comparison.name
        status, problem = Status.COMPLETE, {}
        if name in failed:
            status, problem = Status.FAILED, job.problem_of(failed[name])
        job.record.comparisons.append(comparison_entry(name, status, **problem))


def _run_batches(
    job: Job,
    items: Sequence[T],
    workflow_of: Callable[[Sequence[T]], Workflow],
    last_node: str,
    failures: list[Failure],
    *watchers: Callable[[str, str, str], None],
) -> None:
    """Run a workflow batch by batch, each item's work folder removed when it is done."""
    from msnmo_bids.workflows.execution import run_workflow
    from msnmo_bids.workflows.sweeper import Sweeper, batches

    sweeper = Sweeper(job.work_dir, last_node=last_node, keep=job.options.verbose >= 2)

    def on_event(node: str, event: str, reason: str = "") -> None:
        sweeper.on_event(node, event)
        for watch in watchers:
            watch(node, event, reason)

    try:
        for batch in batches(items):
            failures += run_workflow(
                workflow_of(batch),
                plugin=job.resources.plugin,
                plugin_args=job.plugin_args(),
                on_event=on_event,
                stop_on_first_crash=job.options.stop_on_first_crash,
                crash_dir=job.record.folder,
                last_node=last_node,
            )
            if job.stopped:
                break
    finally:
        sweeper.sweep()


def _visits_workflow(job: Job, batch: Sequence[Comparison]) -> Workflow:
    from msnmo_bids.workflows.visits import init_visits_wf

    return init_visits_wf(
        comparisons=batch,
        output_dir=job.output_dir,
        work_dir=job.work_dir,
        method=method(),
        name=WORKFLOWS[1],
    )
