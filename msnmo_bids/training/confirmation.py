"""Fit the chance that a finding of a network is a lesion.

``python -m msnmo_bids.training.confirmation --weights FILE --confirmed-by FILE --anatomy DIR
--lesion-shapes FILE --out DIR`` simulates scans, half of them with the loads of the diseases and
half with those of either whichever the disease, describes what both networks say of each finding
(:mod:`msnmo_bids.model.findings`) and writes DIR/evidence.json for ``msnmo_bids.training.export``.
What is known of each scan is kept in DIR/findings, so that a run that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path

import numpy as np

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.model.confirmation import Evidence, segment_cube, terms
from msnmo_bids.model.findings import FEATURES, believed, describe_findings
from msnmo_bids.model.weights import load_weights_cached
from msnmo_bids.preprocessing.cube import from_cube
from msnmo_bids.simulation.material import Material, add_material_options, load_material
from msnmo_bids.simulation.sample import SimulatedScan, prepared_scan
from msnmo_bids.training.simulated_test import Case, plan_cases, simulate_case

SEED = 900
SCANS = 600
FOLDS = 5
#: A finding is a lesion if more than this share of it is.
LESION_SHARE = 0.1
_WITHIN = (0.005, 0.995)  # quantiles of the features between which the regression is used
_PENALTY = 1.0  # the C of scikit-learn
_DIGITS = 5  # significant, of the numbers in the file


@dataclass(frozen=True)
class ScanFindings:
    """The findings of one simulated scan that the second network believes.

    Parameters
    ----------
    features : ndarray, (N, F)
        Of :func:`~msnmo_bids.model.findings.describe_findings`.
    lesion_shares : ndarray, (N,)
        Share of each finding that is lesion, on the scan's own grid.
    """

    features: np.ndarray
    lesion_shares: np.ndarray

    @property
    def lesions(self) -> np.ndarray:
        """Which findings are lesions, ``(N,)`` bool."""
        return self.lesion_shares > LESION_SHARE


def findings_of(
    scan: SimulatedScan,
    weights: Sequence[Path],
    rng: np.random.Generator,
    *,
    precision: str = "fp32",
) -> ScanFindings:
    """Find what two networks mark on a simulated scan, and how much of it is lesion.

    Parameters
    ----------
    scan : SimulatedScan
        The scan.
    weights : sequence of Path, (2,)
        Whose findings they are, and those of the second network.
    rng : numpy.random.Generator
        Source of randomness: errors of skull stripping.
    precision : {"fp32", "bf16"}, optional
        Arithmetic of the networks.

    Returns
    -------
    ScanFindings
        Features and truth of each finding that the second network believes.

    Raises
    ------
    WeightsError
        If weights cannot be used.
    """
    import torch

    loaded = [load_weights_cached(file, "cpu", precision) for file in weights]
    metadata = loaded[0][1]
    cube, _, transform = prepared_scan(scan, rng, metadata.cube_shape)
    image = torch.from_numpy(np.ascontiguousarray(cube, dtype=np.float32))[None, None]
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with torch.inference_mode(), autocast:
        first, second = (segment_cube(network, image)[0, 0].numpy() for network, _ in loaded)
    labels, features = describe_findings(first, second, cube, metadata.threshold)
    native = from_cube(labels, transform, order=0)
    sizes, lesion = (
        np.bincount(where.ravel(), minlength=len(features) + 1)[1:]
        for where in (native, native[scan.lesion_mask > 0])
    )
    kept = believed(features)
    return ScanFindings(features[kept], (lesion / np.maximum(sizes, 1))[kept])


def fit_evidence(
    scans: Sequence[ScanFindings], data: str, seed: int = SEED
) -> tuple[Evidence, list[np.ndarray]]:
    """Fit the chance that a finding is a lesion.

    Parameters
    ----------
    scans : sequence of ScanFindings
        At least `FOLDS` with findings.
    data : str
        What to call them.
    seed : int, optional
        Of the folds.

    Returns
    -------
    evidence : Evidence
        Of the fit to all. A scan with many findings counts by the square root of their number.
    chances : list of ndarray, (N,)
        Of each scan's findings, from a fit without the scan.

    Raises
    ------
    ValueError
        If all findings are lesions, or none is.
    """
    from sklearn.model_selection import KFold

    chances = [np.zeros(0)] * len(scans)
    for train, test in KFold(FOLDS, shuffle=True, random_state=seed).split(scans):
        fold = _fit([scans[number] for number in train], data)
        for number in test:
            chances[number] = fold.chances(scans[number].features)
    return _fit(scans, data), chances


def _fit(scans: Sequence[ScanFindings], data: str) -> Evidence:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([scan.features for scan in scans])
    lesion = np.concatenate([scan.lesions for scan in scans])
    counts = [len(scan.features) for scan in scans]
    weight = np.concatenate([np.full(count, count**-0.5) for count in counts if count])
    lowest, highest = np.nanquantile(features, _WITHIN, axis=0)
    features = np.clip(features, lowest, highest)
    means, scales = np.nanmean(features, axis=0), np.maximum(np.nanstd(features, axis=0), 1e-6)
    scaler = StandardScaler()
    scaled = scaler.fit_transform(terms((features - means) / scales))
    model = LogisticRegression(C=_PENALTY, max_iter=5000).fit(scaled, lesion, sample_weight=weight)
    weights = model.coef_[0] / scaler.scale_
    return Evidence(
        means=_rounded(means),
        scales=_rounded(scales),
        lowest=_rounded(lowest),
        highest=_rounded(highest),
        weights=_rounded(weights),
        intercept=_rounded(model.intercept_ - weights @ scaler.mean_)[0],
        data=data,
    )


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{value:.{_DIGITS}g}") for value in values)


def read_evidence(file: Path) -> Evidence:
    """Read the evidence that this program wrote.

    Raises
    ------
    MsnmoError
        If it is missing or malformed.
    """
    try:
        return Evidence(**json.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
    except (ValueError, TypeError) as error:
        problem = f"this is no evidence of findings ({error})"
    remedy = "Fit it with python -m msnmo_bids.training.confirmation"
    raise MsnmoError(problem, file=file, remedy=remedy, exit_code=ExitCode.BAD_DATA)


@cache
def _material(anatomy: Path, lesion_shapes: Path, folder: Path | None) -> Material:
    return load_material(anatomy, lesion_shapes, folder)


def _measure_all(options: argparse.Namespace) -> Iterator[Path]:
    """Write the findings of all scans, several at a time where asked to."""
    measure = partial(_measure, options=options)
    cases = islice(plan_cases(options.scans), options.scans)
    if options.processes == 1:
        yield from map(measure, cases)
        return
    with ProcessPoolExecutor(options.processes) as executor:
        yield from executor.map(measure, cases)


def _measure(case: Case, options: argparse.Namespace) -> Path:
    """Write the findings of a case's scan, unless that was done."""
    import torch

    file: Path = options.out / "findings" / f"{case.number}.npz"
    if file.exists():
        return file
    torch.set_num_threads(1)
    rng = np.random.default_rng((options.seed, case.number))
    material = _material(options.anatomy, options.lesion_shapes, options.cache)
    scan = simulate_case(case, material, rng, matched=case.number // 3 % 2 == 1)
    found = findings_of(
        scan, (options.weights, options.confirmed_by), rng, precision=options.precision
    )
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **asdict(found))
    return file


def _summary(scans: Sequence[ScanFindings], chances: Sequence[np.ndarray]) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    lesion = np.concatenate([scan.lesions for scan in scans])
    return {
        "scans": len(scans),
        "findings": len(lesion),
        "lesions": int(lesion.sum()),
        "auc": round(float(roc_auc_score(lesion, np.concatenate(list(chances)))), 4),
    }


def main() -> int:
    """Fit from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, help="whose findings they are")
    parser.add_argument("--confirmed-by", type=Path, required=True, help="the second network")
    add_material_options(parser, needs_shapes=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of findings and evidence")
    parser.add_argument("--scans", type=int, default=SCANS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=SEED, help="default: %(default)s")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    (options.out / "findings").mkdir(parents=True, exist_ok=True)
    scans = []
    try:
        for file in _measure_all(options):
            with np.load(file) as row:
                scans.append(ScanFindings(row["features"], row["lesion_shares"]))
            logging.info("findings: %d of %d scans", len(scans), options.scans)
    except MsnmoError as error:
        logging.error("%s", error)
        return int(error.exit_code)
    evidence, chances = fit_evidence(scans, f"{len(scans)} simulated scans", options.seed)
    with atomic_path(options.out / "evidence.json") as temporary:
        temporary.write_text(json.dumps(asdict(evidence), indent=2) + "\n", encoding="utf-8")
    print(json.dumps(_summary(scans, chances) | {"features": FEATURES}, indent=2))
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
