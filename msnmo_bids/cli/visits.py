"""Compare the visits of participants when their scans are done."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msnmo_bids.bids.changes import why_not_comparable
from msnmo_bids.bids.runs import FAILED, OK, SKIPPED, comparison_entry
from msnmo_bids.bids.visits import Comparison
from msnmo_bids.cli.comparisons import (
    due_comparisons,
    method,
    possible_comparisons,
    tidy_comparisons,
)
from msnmo_bids.cli.job import VISITS_WORKFLOW, Job

if TYPE_CHECKING:
    from msnmo_bids.workflows.execution import Failure

logger = logging.getLogger(__name__)


def tidy_before(job: Job) -> None:
    """Remove the comparisons of scans that a run is about to replace."""
    running = {scan.relative for scan in job.plan.to_run}
    kept = [scan for scan in job.plan.selection.available if scan.relative not in running]
    tidy_comparisons(job.plan.selection.subjects, kept, job.output_dir)


def compare_visits(job: Job) -> None:
    """Compare the visits of all participants of a run; failures are gathered in the job.

    Parameters
    ----------
    job : Job
        The run, its scans done.
    """
    scans = job.plan.selection.available
    tidy_comparisons(job.plan.selection.subjects, scans, job.output_dir)
    missing = due_comparisons(scans, (), job.output_dir)
    if missing:
        logger.info("%d comparisons of visits to make", len(missing))
        job.comparison_failures = _run(job, missing)
    failed = {failure.prefix: failure for failure in job.comparison_failures}
    for comparison in possible_comparisons(scans, job.output_dir):
        if reason := why_not_comparable(comparison, job.output_dir):
            logger.warning("%s: not compared with the visit before (%s). Run the participant "
                           "again without filters", comparison.later.relative, reason)  # fmt: skip
            continue
        job.record.comparisons.append(
            _failed_entry(job, failed[comparison.name])
            if comparison.name in failed
            else comparison_entry(comparison.name, OK if comparison in missing else SKIPPED)
        )


def description_of_visits(comparison: Comparison, output_dir: Path) -> str:
    """Return what the workflow of a comparison says of itself."""
    from msnmo_bids.workflows.visits import init_visits_wf

    workflow = init_visits_wf(
        comparisons=[comparison], output_dir=output_dir, work_dir=output_dir, method=method()
    )
    return workflow.visit_desc()


def _failed_entry(job: Job, failure: Failure) -> dict[str, Any]:
    return comparison_entry(
        failure.prefix,
        FAILED,
        step=failure.step,
        message=failure.message,
        remedy=failure.remedy,
        crash_file=job.shown_crash_file(failure),
    )


def _run(job: Job, missing: Sequence[Comparison]) -> list[Failure]:
    from msnmo_bids.workflows.execution import run_workflow
    from msnmo_bids.workflows.steps import LAST_NODE_OF_VISITS
    from msnmo_bids.workflows.sweeper import Sweeper, batches
    from msnmo_bids.workflows.visits import init_visits_wf

    keep = job.options.verbose >= 2
    sweeper = Sweeper(job.work_dir, last_node=LAST_NODE_OF_VISITS, keep=keep)
    failures: list[Failure] = []
    limits = method()
    try:
        for batch in batches(missing):
            workflow = init_visits_wf(
                comparisons=batch,
                output_dir=job.output_dir,
                work_dir=job.work_dir,
                method=limits,
                name=VISITS_WORKFLOW,
            )
            failures += run_workflow(
                workflow,
                plugin=job.resources.plugin,
                plugin_args=job.plugin_args(),
                on_event=sweeper.on_event,
                stop_on_first_crash=job.options.stop_on_first_crash,
                crash_dir=job.record.folder,
                last_node=LAST_NODE_OF_VISITS,
            )
            if failures and job.options.stop_on_first_crash:
                break
    finally:
        sweeper.sweep()
    return failures
