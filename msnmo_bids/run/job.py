"""A participant run under way, and what it was asked to do."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msnmo_bids.bids.resume import Expected, why_incomplete
from msnmo_bids.bids.runs import RunRecord
from msnmo_bids.bids.scans import Scan
from msnmo_bids.run.options import AppOptions
from msnmo_bids.run.plan import Plan
from msnmo_bids.run.resources import Resources
from msnmo_bids.run.session import nipype_level

if TYPE_CHECKING:
    from msnmo_bids.workflows.execution import Failure
    from msnmo_bids.workflows.usage import Usage

WORKFLOWS = ("msnmo_wf", "visits_wf")
WORKERS_LOG = "workers.log"


@dataclass
class Job:
    """A participant run under way.

    Parameters
    ----------
    options : AppOptions
        From the command line.
    plan : Plan
        With device and precision resolved.
    record : RunRecord
        What will be written to ``run.json``.
    work_dir : Path
        Work folder.
    resources : Resources
        Plugin and threads.
    failures : list of Failure
        Of all batches so far.
    comparison_failures : list of Failure
        Of comparisons of visits; ``prefix`` is the comparison's name.
    usage : dict
        Name of a scan -> step -> what it cost.
    """

    options: AppOptions
    plan: Plan
    record: RunRecord
    work_dir: Path
    resources: Resources
    failures: list[Failure] = field(default_factory=list)
    comparison_failures: list[Failure] = field(default_factory=list)
    usage: dict[str, dict[str, Usage]] = field(default_factory=dict)

    @property
    def output_dir(self) -> Path:
        """Output folder, absolute."""
        return self.options.output_dir.absolute()

    @property
    def stopped(self) -> bool:
        """Whether the run ended at its first failure, because the user wants that."""
        failed = bool(self.failures or self.comparison_failures)
        return failed and self.options.stop_on_first_crash

    def why_incomplete(self, scan: Scan) -> str | None:
        """Return why a scan is not complete now, None when it is."""
        expected = Expected(self.plan.settings, self.record.version, self.plan.metadata.fingerprint)
        return why_incomplete(scan, self.output_dir, expected)

    def clean_work(self) -> None:
        """Remove what earlier runs left in the work folder, and nothing that is not ours.

        With ``--participant-label`` only these participants' folders go: other runs may share it.
        """
        for root in (self.work_dir / name for name in WORKFLOWS):
            if self.options.participant_label is None:
                shutil.rmtree(root, ignore_errors=True)
                continue
            for subject in self.plan.selection.subjects:
                shutil.rmtree(root / f"single_subject_{subject}_wf", ignore_errors=True)

    def tidy(self) -> None:
        """Remove an empty workers' log and empty work folders."""
        workers = self.record.folder / WORKERS_LOG
        with suppress(OSError):
            if workers.stat().st_size == 0:
                workers.unlink()
        for folder in (*(self.work_dir / name for name in WORKFLOWS), self.work_dir):
            with suppress(OSError):
                folder.rmdir()

    def plugin_args(self) -> dict[str, Any]:
        """Return the arguments of the Nipype plugin."""
        from msnmo_bids.workflows.gpus import gpu_names

        arguments = dict(self.resources.plugin_args)
        if self.resources.plugin == "MultiProc":
            arguments["worker_log"] = str(self.record.folder / WORKERS_LOG)
            arguments["log_level"] = nipype_level(self.options.verbose)
            arguments["gpus"] = gpu_names(self.plan.settings.device, self.plan.gpus)
        return arguments

    def steps_of(self, scan: Scan) -> dict[str, dict[str, float]]:
        """Return what each step of a scan cost in this run, as ``run.json`` says it."""
        return {step: usage.entry() for step, usage in self.usage.get(scan.prefix, {}).items()}

    def problem_of(self, failure: Failure) -> dict[str, str]:
        """Return what a record says of a failure; its crash file relative to the output folder."""
        crash = failure.crash_file
        if crash is not None and crash.is_relative_to(self.output_dir):
            crash = crash.relative_to(self.output_dir)
        return {
            "step": failure.step,
            "message": failure.message,
            "remedy": failure.remedy or "",
            "crash_file": crash.as_posix() if crash is not None else "",
        }
