"""What the steps of processing cost over a cohort: time, processor, memory."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from msnmo_bids.bids.records import ScanRecord


class StepCost(NamedTuple):
    """What a step cost.

    Parameters
    ----------
    step : str
        In words.
    scans : int
        Scans in which it was measured.
    wall_seconds, cpu_seconds : float
        Medians over them; of all cores.
    memory_gb : float
        Largest peak of a process.
    share : float
        Of the longest step's median, for a bar.
    """

    step: str
    scans: int
    wall_seconds: float
    cpu_seconds: float
    memory_gb: float
    share: float


def step_costs(records: Sequence[ScanRecord]) -> list[StepCost]:
    """Summarise what processing cost, step by step.

    Parameters
    ----------
    records : sequence of ScanRecord
        Scans; those whose run did not measure it count for nothing.

    Returns
    -------
    list of StepCost
        In the order in which a scan goes through them.
    """
    by_step: dict[str, list[dict[str, float]]] = {}
    for record in records:
        for step, cost in record.steps.items():
            by_step.setdefault(step, []).append(cost)
    wall = {step: median(c["WallSeconds"] for c in costs) for step, costs in by_step.items()}
    longest = max(wall.values(), default=0) or 1
    return [
        StepCost(
            step=step,
            scans=len(costs),
            wall_seconds=wall[step],
            cpu_seconds=median(cost["CPUSeconds"] for cost in costs),
            memory_gb=max(cost["MemoryGB"] for cost in costs),
            share=wall[step] / longest,
        )
        for step, costs in by_step.items()
    ]
