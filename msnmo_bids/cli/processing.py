"""Run the workflow over the scans of a plan and follow it."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from typing import Any

from msnmo_bids.bids.citation import write_citations
from msnmo_bids.bids.resume import remove_old_files
from msnmo_bids.bids.runs import RunRecord
from msnmo_bids.bids.visits import comparisons
from msnmo_bids.cli.checks import work_folder
from msnmo_bids.cli.job import WORKFLOW, Job
from msnmo_bids.cli.logs import route_nipype
from msnmo_bids.cli.outputs import write_shared
from msnmo_bids.cli.plan import Plan
from msnmo_bids.cli.progress import Progress
from msnmo_bids.cli.resources import check_plugin, choose_resources, set_environment
from msnmo_bids.cli.results import finish
from msnmo_bids.cli.session import Outcome, Session, exit_code_for
from msnmo_bids.cli.visits import compare_visits, description_of_visits, tidy_before
from msnmo_bids.version import get_version

logger = logging.getLogger(__name__)


def process(options: argparse.Namespace, plan: Plan, session: Session) -> Outcome:
    """Process the scans of a plan.

    Parameters
    ----------
    options : argparse.Namespace
        From the command line.
    plan : Plan
        With at least one scan to run, device and precision resolved.
    session : Session
        Log and counts of this call.

    Returns
    -------
    Outcome
        Counts and exit code.

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
    job.write_configuration(list(session.command))
    write_shared(options, plan)
    set_environment(work_dir)
    if options.clean_workdir:
        job.clean_work()
    total, count = len(plan.selection.scans), len(plan.to_run)
    logger.info(
        "%d of %d scans to process, %d complete already; log: %s",
        count, total, total - count, record.folder,
    )  # fmt: skip
    session.ok, session.failed = total - count, count
    try:
        tidy_before(job)
        _run_batches(job, session)
        if not job.stopped:
            compare_visits(job)
    except BaseException as error:
        finish(job, session, ended_by=exit_code_for(error))
        raise
    return finish(job, session)


def _run_batches(job: Job, session: Session) -> None:
    """Run the workflow batch by batch; failures are gathered in the job."""
    from msnmo_bids.workflows.base import init_msnmo_wf
    from msnmo_bids.workflows.execution import run_workflow
    from msnmo_bids.workflows.steps import LAST_NODE, step_name
    from msnmo_bids.workflows.sweeper import Sweeper, batches

    route_nipype(job.options.verbose)
    names = {f"scan_{scan.node_name}_wf": scan.prefix for scan in job.plan.to_run}
    progress = Progress(names, last_node=LAST_NODE, step_name=step_name)
    session.console.progress = progress
    keep = job.options.verbose >= 2
    sweeper = Sweeper(job.work_dir, last_node=LAST_NODE, keep=keep)

    def on_event(node: str, event: str) -> None:
        sweeper.on_event(node, event)
        progress.on_event(node, event)

    common: dict[str, Any] = {
        "settings": job.plan.settings,
        "weights": job.plan.weights,
        "output_dir": job.output_dir,
        "work_dir": job.work_dir,
        "omp_nthreads": job.resources.omp_nthreads,
        "name": WORKFLOW,
    }
    write_citations(job.output_dir, methods=_methods(job.plan, common), version=job.record.version)
    try:
        for batch in batches(job.plan.to_run):
            for scan in batch:
                remove_old_files(scan, job.output_dir)
            job.failures += run_workflow(
                init_msnmo_wf(scans=batch, **common),
                plugin=job.resources.plugin,
                plugin_args=job.plugin_args(),
                on_event=on_event,
                stop_on_first_crash=job.options.stop_on_first_crash,
                crash_dir=job.record.folder,
            )
            if job.stopped:
                break
    finally:
        progress.clear()
        session.console.progress = None
        sweeper.sweep()


def _methods(plan: Plan, common: dict[str, Any]) -> list[str]:
    """Return the workflows' description of themselves: scans with and without skull, visits.

    From one scan of each kind of the whole selection, so that a run that resumes writes the same.
    """
    from msnmo_bids.workflows.base import init_msnmo_wf

    kinds = {bool(scan.skull_stripped): scan for scan in reversed(plan.selection.scans)}
    texts = [init_msnmo_wf(scans=[kinds[kind]], **common).visit_desc() for kind in sorted(kinds)]
    found = comparisons(plan.selection.available)
    return texts + ([description_of_visits(found[0], common["output_dir"])] if found else [])
