"""Time and size of the group level's page of a large made-up cohort.

``PYTHONPATH=tests python -m benchmarks.cohort_page [--people 250] [--visits 2]``

The cohort is that of the tests: tables, results, masks and manual masks, three sites, three
diagnoses. Prints wall and CPU seconds of the group level and the megabytes of the page.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from cohort import make_cohort, manual_masks

from msnmo_bids.group.write import GroupSettings, write_group


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=250)
    parser.add_argument("--visits", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        raw, out, entries = make_cohort(Path(folder), options.people, visits=options.visits)
        settings = GroupSettings(masks=manual_masks(raw, entries))
        wall, cpu = time.perf_counter(), time.process_time()
        written = write_group(out, entries, bids_dir=raw, settings=settings)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        [page] = [path for path in written if path.suffix == ".html"]
        print(
            f"{len(entries)} scans: {wall:.1f} s, {cpu:.1f} CPU s, "
            f"page {page.stat().st_size / 1e6:.2f} MB"
        )


if __name__ == "__main__":
    main()
