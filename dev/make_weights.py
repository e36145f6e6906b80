"""From nothing to the next weights: ``python -m dev.make_weights WORK --data DATA --version V``.

Simulated brains; a long start on those brains alone, from it the four folds and the network of all
sources; leave-one-source-out with its page, the branch that classifies, the file in the package.
Every step goes on where it was stopped, and what is trained is not trained again, so the same
command finishes what a night left. Hours and processor are printed and belong into
``docs/model-card.md``.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dev.sources import SOURCES
from msnmo_bids.model.weights import SHIPPED_WEIGHTS

ROOT = Path(__file__).resolve().parent.parent
START, ALL = "start", "all"
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Recipe:
    """How much of everything; crops are of 64³.

    Parameters
    ----------
    brains : int
        Simulated brains.
    width : float
        Factor of the paper's channels.
    start, fold : int
        Steps of the start, which sees simulated brains alone (two processes, each with three crops
        per step), and of each fold and of the network of all sources (four crops per step).
    people : int
        Simulated people whom the weights look at, besides those with small-vessel disease: the
        branch is fitted to them.
    """

    brains: int = 276
    width: float = 0.5
    start: int = 8000
    fold: int = 4000
    people: int = 2000


@dataclass(frozen=True)
class Places:
    """Folders of what is made on the way, and of real data, label maps and lesion shapes."""

    work: Path
    data: Path

    @property
    def runs(self) -> Path:
        """The folder of the trainings."""
        return self.work / "runs"


def store(places: Places, recipe: Recipe, first: int, step: int) -> list[str]:
    """Return the arguments that make every `step`-th simulated brain, from the `first` on."""
    return [
        "dev.simulated_store", str(places.work / "store"), *assets(places),
        "--count", str(recipe.brains), "--first", str(first), "--step", str(step),
    ]  # fmt: skip


def assets(places: Places) -> list[str]:
    """Return the arguments that name heads and lesion shapes."""
    return [
        "--anatomy", str(places.data / "anatomy"),
        "--lesion-shapes", str(places.data / "lesions" / "ms_lesion_shapes_mni1mm.npz"),
        "--cache", str(places.work / "heads"),
    ]  # fmt: skip


def training(places: Places, recipe: Recipe, name: str) -> list[str]:
    """Return the arguments of a training: the start, a source's fold, or that of all sources."""
    program = ["dev.train_lesions", str(places.runs / name)]
    arguments = ["--compile", "--seed", "1", "--width", str(recipe.width),
                 "--simulated", str(places.work / "store")]  # fmt: skip
    if name == START:
        processes = ["torch.distributed.run", "--nproc-per-node", "2", "-m"]
        return [*processes, *program, "--steps", str(recipe.start), "--batch", "3", *arguments]
    arguments += ["--steps", str(recipe.fold), "--prepared", str(places.work / "prepared"),
                  "--start", str(places.runs / START / WEIGHTS)]  # fmt: skip
    return [*program, *arguments, *(["--without", name] if name in SOURCES else [])]


def train(places: Places, recipe: Recipe, names: Sequence[str], jobs: int) -> None:
    """Train what has no weights yet."""
    missing = [name for name in names if not (places.runs / name / WEIGHTS).exists()]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda name: run(training(places, recipe, name)), missing))


def scoring(places: Places) -> list[str]:
    """Return the arguments of leave-one-source-out, which prepares the real scans, too."""
    return [
        "dev.leave_one_source_out", str(places.work / "scores"), "--data", str(places.data),
        "--cache", str(places.work / "prepared"), "--runs", str(places.runs),
        "--page", str(ROOT / "docs" / "leave-one-source-out.md"),
        "--pictures", str(places.work / "pictures"),
    ]  # fmt: skip


def shipping(places: Places, recipe: Recipe, version: str) -> list[list[str]]:
    """Return the arguments that make the file of the package of the network of all sources."""
    lesions, fit = places.work / SHIPPED_WEIGHTS.name, places.work / "diagnosis"
    return [
        ["dev.export_lesions", str(places.runs / ALL), str(lesions), "--version", version,
         "--store", str(places.work / "store"), "--prepared", str(places.work / "prepared")],
        ["dev.fit_diagnosis", str(fit), *assets(places), "--weights", str(lesions),
         "--people", str(recipe.people)],
        ["dev.export_diagnosis", str(fit), "--weights", str(lesions), "--version", version,
         "--out", str(SHIPPED_WEIGHTS)],
    ]  # fmt: skip


def run(arguments: Sequence[str], threads: int = 1) -> None:
    """Run a program of this folder to its end.

    Raises
    ------
    subprocess.CalledProcessError
        It failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=environment, check=True)
    print(f"{(time.monotonic() - began) / 3600:.2f} h: {' '.join(arguments[:2])}", flush=True)


def main() -> None:
    """Make everything that is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder of what is made on the way")
    parser.add_argument("--data", type=Path, required=True, help="folder of the real data")
    parser.add_argument("--version", required=True, help="of the weights")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cores")
    options = parser.parse_args()
    places, recipe = Places(options.work.resolve(), options.data.resolve()), Recipe()
    print(f"{platform.processor() or platform.machine()}, {options.jobs} cores, {recipe}")
    with ThreadPoolExecutor(options.jobs) as pool:
        parts = [store(places, recipe, first, options.jobs) for first in range(options.jobs)]
        list(pool.map(run, parts))
    run(scoring(places), options.jobs)  # nothing to score yet: prepares the real scans
    train(places, recipe, (START,), options.jobs)
    train(places, recipe, (*SOURCES, ALL), options.jobs)
    run(scoring(places), options.jobs)
    for arguments in shipping(places, recipe, options.version):
        run(arguments, options.jobs)


if __name__ == "__main__":
    main()
