"""The weights that the command line asks for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from msnmo_bids.errors import ExitCode, MsnmoError, UsageError

if TYPE_CHECKING:
    from msnmo_bids.model.weights import WeightsMetadata


def find_ensemble(options: argparse.Namespace) -> list[tuple[Path, WeightsMetadata]]:
    """Find the weights, and those of ``--ensemble``.

    Parameters
    ----------
    options : argparse.Namespace
        From the command line.

    Returns
    -------
    list of (Path, WeightsMetadata)
        The tensors' files, the main one first, and what travels with them.

    Raises
    ------
    MsnmoError
        If a file is missing (66), or the weights do not go together.
    """
    from msnmo_bids.model.inference import check_ensemble
    from msnmo_bids.model.weights import default_weights_path

    found = [find_weights(options.weights or default_weights_path())]
    found += [find_weights(file, "--ensemble") for file in options.ensemble]
    try:
        check_ensemble([metadata for _, metadata in found])
    except ValueError as error:
        remedy = "Name weights that were trained for the same classes and cube (--ensemble)"
        raise UsageError(str(error), remedy=remedy) from error
    return found


def find_weights(path: Path, option: str = "--weights") -> tuple[Path, WeightsMetadata]:
    """Find weights and read what travels with them.

    Parameters
    ----------
    path : Path
        ``NAME.safetensors``.
    option : str, optional
        Where they were named.

    Returns
    -------
    weights : Path
        The tensors' file.
    metadata : WeightsMetadata
        Its description.

    Raises
    ------
    MsnmoError
        If a file is missing (66), or the lesion network that they name cannot be used.
    """
    from msnmo_bids.model.weights import lesion_weights, read_metadata, weights_files

    weights, description = weights_files(path)
    for file in (weights, description):
        if not file.is_file():
            raise MsnmoError(
                "the weights file does not exist",
                file=file,
                remedy=f"Name a .safetensors file that has its .json beside it ({option})",
                exit_code=ExitCode.INPUT_MISSING,
            )
    metadata = read_metadata(weights)
    lesion_weights(weights, metadata)
    return weights, metadata
