"""Every network of the paper's tables by name: joint model, its ablations, its baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION, JointConfig, LossConfig

if TYPE_CHECKING:
    from torch import nn

CLASSES = JointConfig.classes


@dataclass(frozen=True)
class Entry:
    """One network of the paper's tables, by the numbers of the tables that have the row.

    The name is that of commands and folders, the label the paper's. Without a `config` it is a
    published network for one task (:mod:`msnmo_bids.model.baselines`). Losses of what a network
    lacks add nothing.

    Examples
    --------
    >>> entry("joint").label, entry("joint").tasks
    ('Joint Model', ('segmentation', 'classification'))
    """

    name: str
    label: str
    tables: tuple[int, ...]
    config: JointConfig | None = field(default_factory=JointConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the network."""
        if self.config is not None:
            return self.config.tasks
        return (SEGMENTATION,) if 3 in self.tables else (CLASSIFICATION,)

    def build(self, classes: Sequence[str] = CLASSES, width: float = 1.0) -> nn.Module:
        """Build the network with random weights.

        It has the same `tasks`, and ``forward(image, tasks=None) -> JointOutput`` for an image
        ``(B, 1, D, H, W)`` whose sides are multiples of 16 and at least 32.

        Parameters
        ----------
        classes : sequence of str, optional
            Names of the diagnoses; the position is the label.
        width : float, optional
            Factor of the numbers of channels (`msnmo_bids.model.config.scale_channels`). 1 is the
            paper's network, 0.25 a slim one for tests and small machines.

        Raises
        ------
        ValueError
            If the classes or the width make no network.
        """
        if self.config is not None:
            from msnmo_bids.model.joint import JointNetwork

            return JointNetwork(replace(self.config, classes=tuple(classes)).scaled(width))
        from msnmo_bids.model.baselines import build_baseline

        return build_baseline(self.name, len(classes), width)


_ENTRIES = (
    Entry("joint", "Joint Model", (3, 4, 5, 6, 7, 8, 9)),
    # The single-task models keep the front end, so that only the second task is taken away.
    Entry("only_segmentation", "Only Seg Model", (5,), JointConfig(tasks=(SEGMENTATION,))),
    Entry(
        "only_classification",
        "Only Cls Model",
        (6,),
        JointConfig(tasks=(CLASSIFICATION,), guidance="none"),
    ),
    Entry("without_sharing", "w/o share", (7,), JointConfig(sharing="none")),
    Entry("only_local", "Only local", (7,), JointConfig(sharing="local")),
    Entry("only_global", "Only global", (7,), JointConfig(sharing="global")),
    Entry("without_guidance", "w/o LGM", (8,), JointConfig(guidance="none")),
    Entry("guidance_dot", "dot product", (8,), JointConfig(guidance="dot")),
    Entry("guidance_concat", "concat", (8,), JointConfig(guidance="concat")),
    Entry("guidance_add", "dot add", (8,), JointConfig(guidance="add")),
    Entry("without_cross_loss", "w/o cross loss", (9,), loss=LossConfig(cross_weight=0.0)),
    Entry("unet", "3D UNet", (3,), None),
    Entry("vnet", "VNet", (3,), None),
    Entry("attention_unet", "AttentionUNet", (3,), None),
    Entry("resnet50", "ResNet50", (4,), None),
    Entry("resnet101", "ResNet101", (4,), None),
    Entry("resnet152", "ResNet152", (4,), None),
    Entry("densenet121", "DenseNet121", (4,), None),
    Entry("senet50", "SENet50", (4,), None),
)
_BY_NAME = {known.name: known for known in _ENTRIES}


def names(table: int | None = None) -> tuple[str, ...]:
    """Return the names of all networks, or of those in one table of the paper (3 to 9)."""
    return tuple(known.name for known in _ENTRIES if table is None or table in known.tables)


def entry(name: str) -> Entry:
    """Return the network of a name.

    Raises
    ------
    ValueError
        If there is none; with the names that there are.
    """
    if name not in _BY_NAME:
        raise ValueError(f"unknown network {name!r}: choose one of {', '.join(names())}")
    return _BY_NAME[name]
