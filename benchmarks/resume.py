"""How long a run takes that finds everything finished: ``python -m benchmarks.resume``.

One small simulated scan goes through the app (``--sloppy``); its raw image and its derivatives are
there again under other labels (images and pages as hard links). Prints wall seconds and exit code
of a run over all of them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.one_scan import RUN

_FIRST = "sub-01"


def copy_person(folder: Path, label: str) -> None:
    """Give the first participant's files of a data set another label, in names and texts."""
    for file in [*folder.glob(f"{_FIRST}/**/*"), *folder.glob(f"{_FIRST}.html")]:
        if file.is_dir():
            continue
        target = folder / str(file.relative_to(folder)).replace(_FIRST, label)
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in {".json", ".tsv"}:
            target.write_text(file.read_text(encoding="utf-8").replace(_FIRST, label), "utf-8")
            shutil.copystat(file, target)  # the time of change is a part of what complete means
        else:
            target.hardlink_to(file)


def main() -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=500)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        raw, out = Path(scratch, "raw"), Path(scratch, "out")
        subprocess.run(
            [sys.executable, "-m", "msnmo_bids.cli.simulate", str(raw), "--diagnosis", "MS"],
            check=True,
        )
        command = [
            sys.executable, str(RUN), str(raw), str(out), "participant", "--sloppy",
            "--skip-bids-validation", "--work-dir", f"{scratch}/work",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        table = raw / "participants.tsv"
        header, row = table.read_text(encoding="utf-8").splitlines()
        labels = [f"sub-{number:03d}" for number in range(2, options.scans + 1)]
        for label in labels:
            for folder in (raw, out):
                copy_person(folder, label)
        rows = [row, *(row.replace(_FIRST, label) for label in labels)]
        table.write_text("\n".join([header, *rows, ""]), encoding="utf-8")
        for _ in range(options.runs):
            began = time.monotonic()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.monotonic() - began
            last = (done.stdout + done.stderr).strip().splitlines()[-1]
            print(f"{options.scans} scans: {seconds:.1f} s, exit code {done.returncode}: {last}")


if __name__ == "__main__":
    main()
