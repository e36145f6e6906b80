"""Time and memory of one scan, from the raw image to the report.

``python -m benchmarks.one_scan BIDS_DIR PARTICIPANT [--session S] [--nprocs 2] [--runs 3] [-- …]``

Prints a table: wall seconds of the whole program (start, imports and validation included), and the
largest memory that all its processes held together (proportional set size, sampled); then the
median of what each step took (`run.json`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

RUN = Path(__file__).resolve().parent.parent / "run.py"


def memory_of_group(group: int) -> float:
    """Return the proportional set size of all processes of a session (GiB)."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) != group:
                continue
            for line in (folder / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
        except (OSError, ValueError):
            continue
    return total / 2**20


def run_once(arguments: list[str]) -> tuple[float, float, int]:
    """Run the app; return wall seconds, peak memory (GiB) and exit code."""
    started = time.monotonic()
    process = subprocess.Popen(
        arguments, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    peak = [0.0]

    def watch() -> None:
        while process.poll() is None:
            peak[0] = max(peak[0], memory_of_group(process.pid))
            time.sleep(0.25)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    seconds = time.monotonic() - started
    watcher.join()
    return seconds, peak[0], code


def steps_of_run(out: Path) -> dict[str, dict[str, float]]:
    """Return what each step of a run's one scan took, from its `run.json`."""
    [record] = out.glob("logs/*/run.json")
    [scan] = json.loads(record.read_text(encoding="utf-8"))["Scans"]
    return scan["Steps"]


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bids_dir")
    parser.add_argument("participant")
    parser.add_argument("--session")
    parser.add_argument("--nprocs", default="2")
    parser.add_argument("--mem-mb", default="4000")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("options", nargs="*", help="further options of the app, after --")
    asked = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    print("run\twall_s\tpeak_GiB\texit_code")
    steps: dict[str, list[dict[str, float]]] = {}
    walls = []
    for number in range(asked.runs):
        with tempfile.TemporaryDirectory() as scratch:
            arguments = [
                sys.executable, str(RUN), asked.bids_dir, f"{scratch}/out", "participant",
                "--participant-label", asked.participant, "--nprocs", asked.nprocs,
                "--mem-mb", asked.mem_mb, "--work-dir", f"{scratch}/work", *asked.options,
            ]  # fmt: skip
            if asked.session:
                arguments += ["--session-label", asked.session]
            seconds, peak, code = run_once(arguments)
            for name, cost in steps_of_run(Path(scratch, "out")).items():
                steps.setdefault(name, []).append(cost)
        walls.append(seconds)
        print(f"{number + 1}\t{seconds:.1f}\t{peak:.2f}\t{code}", flush=True)
    print(f"median\t{statistics.median(walls):.1f}\n\nstep\twall_s\tcpu_s")
    for name, costs in steps.items():
        wall, cpu = (statistics.median(c[k] for c in costs) for k in ("WallSeconds", "CPUSeconds"))
        print(f"{name}\t{wall:.1f}\t{cpu:.1f}")


if __name__ == "__main__":
    main()
