"""Kill runs at random moments, run two at once, fill disks: ``python -m dev.killed_runs FOLDER``.

A few simulated scans go through the app (``--sloppy``): once undisturbed, then under each
disturbance and again until all is complete. What lies in the output folder afterwards, group level
included, must be the same to the byte; only the logs of the runs are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FAST = ("--sloppy", "--skip-bids-validation", "--device", "cpu", "--omp-nthreads", "1",
        "--nprocs", "2")  # fmt: skip
#: Participant and visit of each scan.
SCANS = (("01", "1"), ("01", "2"), ("02", "1"))
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)
LONGEST_S = 3600.0
#: A program in mounts of its own, on a small disk whose content is copied away at the end.
APART = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
ON_SMALL_DISK = (
    'mount -t tmpfs -o size="$1" tmpfs "$0"; kept="$2"; shift 2; "$@"; code=$?; '
    'cp -a "$0/." "$kept"; exit $code'
)


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    then: str
    differences: list[str]


@dataclass
class Trial:
    """An output and a work folder, and how the app is run into them."""

    raw: Path
    folder: Path
    rows: list[Row] = field(default_factory=list)

    @property
    def out(self) -> Path:
        """Output folder."""
        return self.folder / "out"

    def command(self, level: str = "participant", *options: str) -> list[str]:
        """Return the command line of the app."""
        program = [sys.executable, str(ROOT / "run.py"), str(self.raw), str(self.out), level]
        fast = [*FAST, "--work-dir", str(self.folder / "work")] if level == "participant" else []
        return [*program, *fast, *options]

    def start(self, *options: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Begin a run of the participant level in a process group of its own."""
        return subprocess.Popen(
            [*before, *self.command("participant", *options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def complete(self) -> None:
        """Run until all is complete, and the group level."""
        for level in ("participant", "group"):
            ran = subprocess.run(
                self.command(level), capture_output=True, text=True, check=False, timeout=LONGEST_S
            )
            if ran.returncode:
                raise RuntimeError(f"{level} level: exit code {ran.returncode}\n{ran.stdout}")


def make_scans(raw: Path) -> None:
    """Write a raw data set of small simulated brains, two visits of one participant among them."""
    import nibabel as nib

    from msnmo_bids.simulation.assets import mni_head
    from msnmo_bids.simulation.dataset import scanner_units
    from msnmo_bids.simulation.imaging import Protocol
    from msnmo_bids.simulation.sample import simulate_scan

    coarse = Protocol("coarse", (1.8, 1.8, 4.0), 4.0, 0.02, 0.1)
    head = mni_head().cropped(margin=6)
    raw.mkdir(parents=True)
    described = {"Name": "simulated", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (raw / "dataset_description.json").write_text(json.dumps(described))
    (raw / "FLAIR.json").write_text(json.dumps({"SkullStripped": True}))
    for number, (subject, session) in enumerate(SCANS):
        scan = simulate_scan(head, np.random.default_rng(number), load=12.0, protocol=coarse)
        data = (scanner_units(scan) * scan.brain_mask).astype(np.int16)
        name = f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}_FLAIR.nii.gz"
        (raw / name).parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(data, scan.affine), raw / name)


#: What pages say of time and memory.
_MEASURED = re.compile(
    rb'<p>Processing took.*?</p>|<a href="#cost">.*?</a>|<section id="cost">.*?</section>',
    re.DOTALL,
)


def _unmeasured(path: Path) -> bytes:
    """Return a file's content; of a page without times, and without the empty lines they leave."""
    if path.suffix != ".html":
        return path.read_bytes()
    lines = _MEASURED.sub(b"", path.read_bytes()).splitlines()
    return b"\n".join(line for line in lines if line.strip())


def content(out: Path) -> dict[str, bytes]:
    """Return all files of an output folder but the logs of single runs; pages without times."""
    return {
        name.as_posix(): _unmeasured(path)
        for path in sorted(out.rglob("*"))
        if path.is_file()
        and ((name := path.relative_to(out)).parts[0] != "logs" or name.name.startswith("CITATION"))
    }


def differences(expected: dict[str, bytes], out: Path) -> list[str]:
    """Name the files that an output folder lacks, has besides, or has with another content."""
    found = content(out)
    return sorted(name for name in expected | found if expected.get(name) != found.get(name))


def kill_runs(
    trial: Trial, expected: dict[str, bytes], *, kills: int, seconds: float, seed: int
) -> None:
    """Kill runs into one output folder until one ends by itself; begin anew until enough died."""
    rng = random.Random(seed)
    while kills:
        shutil.rmtree(trial.folder, ignore_errors=True)
        died: list[str] = []
        while kills:
            moment, how = rng.uniform(0, seconds), SIGNALS[kills % len(SIGNALS)]
            process = trial.start()
            try:
                process.communicate(timeout=moment)
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, how)
                process.communicate()
            kills -= 1
            there = len(list(trial.out.rglob("*_diagnosis.json")))
            died.append(f"{how.name} after {moment:.0f} s ({there} of {len(SCANS)} scans complete)")
        trial.complete()
        differ = differences(expected, trial.out)
        trial.rows += [Row(f"{one}", "run again until complete", differ) for one in died]


def run_two(trial: Trial, expected: dict[str, bytes], *labels: str) -> None:
    """Run two at once into one output and one work folder."""
    shutil.rmtree(trial.folder, ignore_errors=True)
    asked: list[tuple[str, ...]] = [("--participant-label", label) for label in labels] or [(), ()]
    processes = [trial.start(*options) for options in asked]
    said = [process.communicate(timeout=LONGEST_S)[0] for process in processes]
    codes = [process.returncode for process in processes]
    torn = [line for text in said for line in text.splitlines() if "ERROR" in line]
    trial.complete()
    differ = [*differences(expected, trial.out), *torn, *(f"exit code {c}" for c in codes if c)]
    who = "other participants" if labels else "the same participants"
    trial.rows.append(Row(f"two runs at once, {who}", "both ended with exit code 0", differ))


def fill_disk(trial: Trial, expected: dict[str, bytes], name: str, size: str) -> None:
    """Run with a small disk under one of the folders, then again with room."""
    shutil.rmtree(trial.folder, ignore_errors=True)
    small, kept = trial.folder / name, trial.folder / "kept"
    small.mkdir(parents=True)
    kept.mkdir()
    before = (*APART, "sh", "-c", ON_SMALL_DISK, str(small), size, str(kept))
    process = trial.start(before=before)
    said = process.communicate(timeout=LONGEST_S)[0].strip().splitlines()
    wrong = [] if process.returncode == 74 else [f"exit code {process.returncode}", *said[-5:]]
    if any("nexpected" in line for line in said):
        wrong += [line for line in said if "nexpected" in line]
    small.rmdir()
    kept.rename(small)
    trial.complete()
    what = f"{'a work' if name == 'work' else 'an output'} folder of {size}B (tmpfs)"
    differ = [*differences(expected, trial.out), *wrong]
    trial.rows.append(Row(what, "exit code 74; run again with room", differ))


def table(rows: Sequence[Row], seconds: float) -> str:
    """Return the section of the page on robustness."""
    lines = [
        "# Runs that were killed, run at once or short of disk",
        "",
        f"Made by `python -m dev.killed_runs`: {len(SCANS)} simulated scans, `--sloppy`; an "
        f"undisturbed run took {seconds:.0f} s. Equal: every file of the output folder, pages and "
        "tables of both levels included, is the same to the byte as after the undisturbed run, but "
        "for what pages say of time and memory.",
        "",
        "| disturbance | then | output |",
        "|---|---|---|",
    ]
    for row in rows:
        outcome = "equal" if not row.differences else f"**differs**: {'; '.join(row.differences)}"
        lines.append(f"| {row.what} | {row.then} | {outcome} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Disturb runs and say what became of their outputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of scans, outputs and work; emptied")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--page", type=Path, help="file of the table")
    options = parser.parse_args()
    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    raw = folder / "raw"
    make_scans(raw)
    undisturbed = Trial(raw, folder / "undisturbed")
    began = time.monotonic()
    undisturbed.start().communicate(timeout=LONGEST_S)
    seconds = time.monotonic() - began
    undisturbed.complete()
    expected = content(undisturbed.out)
    print(f"undisturbed: {seconds:.0f} s, {len(expected)} files", flush=True)

    rows: list[Row] = []
    trial = Trial(raw, folder / "disturbed", rows)
    run_two(trial, expected)
    print(table(rows[-1:], seconds), flush=True)
    run_two(trial, expected, "01", "02")
    for name, size in (("work", "2M"), ("out", "1M")):
        fill_disk(trial, expected, name, size)
    print(table(rows, seconds), flush=True)
    kill_runs(trial, expected, kills=options.kills, seconds=seconds, seed=options.seed)
    text = table(rows, seconds)
    print(text)
    if options.page:
        options.page.write_text(text)
    sys.exit(int(any(row.differences for row in rows)))


if __name__ == "__main__":
    main()
