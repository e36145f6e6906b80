"""The rows of the paper's ablation tables (Tables 5 to 9) as configurations of the one model."""

from __future__ import annotations

from dataclasses import dataclass, field

from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION, JointConfig, LossConfig


@dataclass(frozen=True)
class Ablation:
    """One row of an ablation table.

    Parameters
    ----------
    label : str
        The paper's name of the row.
    tables : tuple of int
        Tables of the paper that have the row.
    model : JointConfig
        Architecture.
    loss : LossConfig
        Losses.
    """

    label: str
    tables: tuple[int, ...]
    model: JointConfig = field(default_factory=JointConfig)
    loss: LossConfig = field(default_factory=LossConfig)


ABLATIONS: dict[str, Ablation] = {
    "joint": Ablation("Joint Model", (3, 4, 5, 6, 7, 8, 9)),
    # The single-task models keep the front end, so that only the second task is taken away.
    "only_segmentation": Ablation("Only Seg Model", (5,), JointConfig(tasks=(SEGMENTATION,))),
    "only_classification": Ablation(
        "Only Cls Model", (6,), JointConfig(tasks=(CLASSIFICATION,), guidance="none")
    ),
    "without_sharing": Ablation("w/o share", (7,), JointConfig(sharing="none")),
    "only_local": Ablation("Only local", (7,), JointConfig(sharing="local")),
    "only_global": Ablation("Only global", (7,), JointConfig(sharing="global")),
    "without_guidance": Ablation("w/o LGM", (8,), JointConfig(guidance="none")),
    "guidance_dot": Ablation("dot product", (8,), JointConfig(guidance="dot")),
    "guidance_concat": Ablation("concat", (8,), JointConfig(guidance="concat")),
    "guidance_add": Ablation("dot add", (8,), JointConfig(guidance="add")),
    "without_cross_loss": Ablation("w/o cross loss", (9,), loss=LossConfig(cross_weight=0.0)),
}
