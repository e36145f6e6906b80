"""Measure weights on simulated scans that were never trained on.

``python -m dev.accuracy --anatomy DIR --lesion-shapes FILE --out DIR``

Each simulated scan is kept in ``OUT/simulated.jsonl`` as soon as it is known, and not measured
again; ``OUT/summary.json`` holds the summary, ``OUT/simulated.png`` a picture of it. Real
scans are what ``dev.leave_one_source_out`` is for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from dev.asset_options import add_asset_options, assets_of
from dev.simulated_summary import (
    accuracy_figure,
    ceiling,
    diagnosis_summary,
    segmentation_summary,
)
from dev.simulated_test import (
    FIRST_SEED,
    describe,
    evaluate_case,
    plan_cases,
    simulate_case,
    truth_features,
)
from msnmo_bids.model.weights import SHIPPED_WEIGHTS, read_metadata


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=SHIPPED_WEIGHTS)
    add_asset_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--each", type=int, default=100, help="simulated scans of each diagnosis")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="of the simulated scans")
    parser.add_argument("--matched", action="store_true", help="with the same loads for all")
    parser.add_argument("--rule", action="store_true", help="apply the radiologists' rule")
    parser.add_argument("--precision", default="auto", help="fp32, bf16 or auto, as in the app")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    metadata = read_metadata(options.weights)
    classes = metadata.class_names
    summary: dict[str, Any] = {"weights": describe(metadata)}
    cases = _simulated(options)
    summary |= _summarise(cases, classes, metadata.naming_limits)
    accuracy_figure(cases, classes, options.out / "simulated.png")
    text = json.dumps(summary, indent=2)
    (options.out / "summary.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def _simulated(options: argparse.Namespace) -> pd.DataFrame:
    file = options.out / f"simulated{'-matched' if options.matched else ''}.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = [json.loads(line) for line in lines]
    assets = assets_of(options)
    with file.open("a", encoding="utf-8") as stream:
        for case in list(plan_cases(options.each))[len(rows) :]:
            rng = np.random.default_rng((options.seed, case.number))
            scan = simulate_case(case, assets, rng, matched=options.matched)
            row = evaluate_case(
                case,
                scan,
                options.weights,
                rng,
                precision=options.precision,
                with_rule=options.rule,
            )
            row["truth"] = truth_features(scan)
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            rows.append(row)
    return pd.DataFrame(rows[: 3 * options.each])


def _summarise(
    cases: pd.DataFrame, classes: tuple[str, ...], limits: Mapping[str, float | None]
) -> dict[str, Any]:
    sick = cases[cases["diagnosis"].isin(list(classes))]
    labels = (sick["diagnosis"] == classes[1]).to_numpy().astype(int)
    groups = {
        f"{column} {value}": diagnosis_summary(part, classes, limits)
        for column in ("protocol", "typicality")
        for value, part in cases.groupby(column)
    }
    return {
        "diagnosis": diagnosis_summary(cases, classes, limits),
        "groups": groups,
        "auc_ceiling": ceiling(pd.DataFrame(sick["truth"].tolist()), labels),
        "segmentation": segmentation_summary(cases),
    }


if __name__ == "__main__":
    main()
