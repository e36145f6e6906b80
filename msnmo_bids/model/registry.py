"""Every network of the paper's tables by name: joint model, its ablations, its baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from msnmo_bids.model.config import (
    CLASSIFICATION,
    SEGMENTATION,
    JointConfig,
    LossConfig,
)

if TYPE_CHECKING:
    from torch import nn

CLASSES = JointConfig.classes


@dataclass(frozen=True)
class BaselineConfig:
    """A published network for one task, as :mod:`msnmo_bids.model.baselines` builds it.

    The normalisation takes the place of the published batch normalisation, which one or two scans
    per batch do not feed; ``"batch"`` leaves it. A segmentation ignores the classes; the width is a
    factor of the numbers of channels.
    """

    network: str
    tasks: tuple[str, ...]
    normalization: str
    classes: tuple[str, ...] = CLASSES
    width: float = 1.0

    def scaled(self, width: float) -> BaselineConfig:
        """Return the same network with `width` times the channels."""
        return replace(self, width=self.width * width)


@dataclass(frozen=True)
class Entry:
    """One network of the paper's tables.

    Parameters
    ----------
    name, label : str
        In commands and folders; the paper's name of the row.
    tables : tuple of int
        Tables of the paper that have the row.
    config, loss
        Architecture and losses; what a network lacks adds nothing.

    Examples
    --------
    >>> entry("joint").label, entry("joint").tasks
    ('Joint Model', ('segmentation', 'classification'))
    """

    name: str
    label: str
    tables: tuple[int, ...]
    config: JointConfig | BaselineConfig = field(default_factory=JointConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the network."""
        return self.config.tasks

    def adapted(self, network: Mapping[str, Any], loss: Mapping[str, Any]) -> Entry:
        """Return the same row of the tables with other settings; what makes the row stays.

        They are of `JointConfig` (baselines have none of them) and of `LossConfig`.

        Raises
        ------
        ValueError
            If a setting is unknown or wrong.

        Examples
        --------
        >>> changed = entry("only_local").adapted({"pooling": "lesion", "sharing": "both"}, {})
        >>> changed.config.pooling, changed.config.sharing
        ('lesion', 'local')
        """
        config = self.config
        if isinstance(config, JointConfig):
            config = JointConfig.from_dict({**network, **_differences(config)})
        return replace(
            self, config=config, loss=LossConfig.from_dict({**loss, **_differences(self.loss)})
        )

    def build(self, classes: Sequence[str] = CLASSES, width: float = 1.0) -> nn.Module:
        """Build the network with random weights.

        Parameters
        ----------
        classes : sequence of str, optional
            Names of the diagnoses; the position is the label.
        width : float, optional
            Factor of the numbers of channels (`msnmo_bids.model.config.scale_channels`). 1 is the
            paper's network, 0.25 a slim one for tests and small machines.

        Returns
        -------
        Module
            ``forward(image, tasks=None) -> JointOutput`` for an image ``(B, 1, D, H, W)`` whose
            sides are multiples of 16 and at least 32; ``tasks`` as here.

        Raises
        ------
        ValueError
            If the classes or the width make no network.
        """
        config = replace(self.config, classes=tuple(classes)).scaled(width)
        if isinstance(config, JointConfig):
            from msnmo_bids.model.joint import JointNetwork

            return JointNetwork(config)
        from msnmo_bids.model.baselines import build_baseline

        return build_baseline(
            config.network, len(config.classes), config.width, config.normalization
        )


def _differences(config: JointConfig | LossConfig) -> dict[str, Any]:
    """Return the settings that are not the defaults."""
    default = type(config)().to_dict()
    return {key: value for key, value in config.to_dict().items() if value != default[key]}


def _segmenting(name: str, label: str) -> Entry:
    return Entry(name, label, (3,), BaselineConfig(name, (SEGMENTATION,), "instance"))


def _classifying(name: str, label: str) -> Entry:
    return Entry(name, label, (4,), BaselineConfig(name, (CLASSIFICATION,), "group"))


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
    _segmenting("unet", "3D UNet"),
    _segmenting("vnet", "VNet"),
    _segmenting("attention_unet", "AttentionUNet"),
    _classifying("resnet50", "ResNet50"),
    _classifying("resnet101", "ResNet101"),
    _classifying("resnet152", "ResNet152"),
    _classifying("densenet121", "DenseNet121"),
    _classifying("senet50", "SENet50"),
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
