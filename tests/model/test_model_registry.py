"""The networks of the paper's tables: rows, what each ablation changes, sizes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from benchmarks.network_sizes import network_size
from msnmo_bids.model import registry
from msnmo_bids.model.config import JointConfig, LossConfig
from msnmo_bids.model.losses import JointLoss

SLIM = 0.25
SEG, CLS = ("segmentation",), ("classification",)

# The rows of the paper's tables, in its words (and of its section 4.3 for the first two).
ROWS = {
    3: {"3D UNet", "VNet", "AttentionUNet", "Joint Model"},
    4: {"ResNet50", "ResNet101", "ResNet152", "DenseNet121", "SENet50", "Joint Model"},
    5: {"Only Seg Model", "Joint Model"},
    6: {"Only Cls Model", "Joint Model"},
    7: {"w/o share", "Only local", "Only global", "Joint Model"},
    8: {"w/o LGM", "dot product", "concat", "dot add", "Joint Model"},
    9: {"w/o cross loss", "Joint Model"},
}

# What each ablation changes: of the architecture, of the losses.
CHANGES = {
    "joint": ({}, {}),
    "only_segmentation": ({"tasks": SEG}, {}),
    "only_classification": ({"tasks": CLS, "guidance": "none"}, {}),
    "without_sharing": ({"sharing": "none"}, {}),
    "only_local": ({"sharing": "local"}, {}),
    "only_global": ({"sharing": "global"}, {}),
    "without_guidance": ({"guidance": "none"}, {}),
    "guidance_dot": ({"guidance": "dot"}, {}),
    "guidance_concat": ({"guidance": "concat"}, {}),
    "guidance_add": ({"guidance": "add"}, {}),
    "without_cross_loss": ({}, {"cross_weight": 0.0}),
}
BASELINES = [name for name in registry.names() if name not in CHANGES]

# Parameters that an ablation lacks, by the start of their names.
LACKING = {
    "joint": (),
    "only_segmentation": (
        "guidance.",
        "classification.",
        "sharing.crossover.weights.classification",
    ),
    "only_classification": (
        "segmentation.",
        "guidance.",
        "sharing.crossover.weights.segmentation",
    ),
    "without_sharing": ("sharing.",),
    "only_local": ("sharing.global_branch.", "sharing.crossover."),
    "only_global": ("sharing.local_branch.", "sharing.crossover."),
    "without_guidance": ("guidance.",),
    "guidance_dot": ("guidance.lesion_conv.", "guidance.feature_conv.", "guidance.fusion_conv."),
    "guidance_concat": ("guidance.attention_conv.",),
    "guidance_add": (
        "guidance.attention_conv.",
        "guidance.feature_conv.",
        "guidance.fusion_conv.",
    ),
    "without_cross_loss": (),
}


def differences(config, default):
    ours, theirs = asdict(config), asdict(default)
    return {key: value for key, value in ours.items() if value != theirs[key]}


def parameter_shapes(name):
    with torch.device("meta"):
        network = registry.entry(name).build()
    return {key: tuple(value.shape) for key, value in network.named_parameters()}


def labels(batch=2, side=32):
    mask = torch.zeros(batch, 1, side, side, side)
    mask[:, :, 8:14, 8:14, 8:14] = 1
    return mask, torch.arange(batch) % 2


def test_every_row_of_every_table_has_a_network():
    for table, rows in ROWS.items():
        assert {registry.entry(name).label for name in registry.names(table)} == rows
        assert len(registry.names(table)) == len(rows)
    assert set(registry.names()) == {name for table in ROWS for name in registry.names(table)}
    assert [registry.entry(name).name for name in registry.names()] == list(registry.names())


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown network 'alexnet'.*joint, only_segmentation"):
        registry.entry("alexnet")


@pytest.mark.parametrize("name", CHANGES)
def test_an_ablation_changes_what_its_name_says(name):
    entry = registry.entry(name)
    model, loss = CHANGES[name]
    assert differences(entry.config, JointConfig()) == model
    assert differences(entry.loss, LossConfig()) == loss


@pytest.mark.parametrize("name", CHANGES)
def test_an_ablation_lacks_the_parameters_of_what_it_takes_away(name):
    joint, ablation = parameter_shapes("joint"), parameter_shapes(name)
    kept = {key: shape for key, shape in joint.items() if not key.startswith(LACKING[name])}
    if name == "without_sharing":  # a local branch for each task
        branch = {
            key.removeprefix("sharing.local_branch."): shape
            for key, shape in joint.items()
            if key.startswith("sharing.local_branch.")
        }
        kept |= {
            f"sharing.branches.{task}.{key}": shape
            for task in ("segmentation", "classification")
            for key, shape in branch.items()
        }
    assert ablation == kept
    assert (name in ("joint", "without_cross_loss")) == (ablation == joint)


def test_without_the_cross_loss_only_the_loss_differs():
    networks = []
    for name in ("joint", "without_cross_loss"):
        torch.manual_seed(0)
        networks.append(registry.entry(name).build(width=SLIM))
    image, (mask, diagnosis) = torch.randn(2, 1, 32, 32, 32), labels()
    outputs = [network(image) for network in networks]
    assert torch.equal(outputs[0].lesion_logits, outputs[1].lesion_logits)
    full = JointLoss(registry.entry("joint").loss)(outputs[0], mask, diagnosis)
    less = JointLoss(registry.entry("without_cross_loss").loss)(outputs[1], mask, diagnosis)
    assert full.cross > 0
    torch.testing.assert_close(less.total, full.total - full.cross)


@pytest.mark.parametrize("name", registry.names())
def test_every_network_has_the_interface_and_can_be_trained(name):
    entry = registry.entry(name)
    network = entry.build(classes=("MS", "NMOSD", "HC"), width=SLIM)
    assert network.tasks == entry.tasks
    image, (mask, diagnosis) = torch.randn(1, 1, 32, 32, 32), labels(batch=1)
    output = network(image)
    if "segmentation" in entry.tasks:
        assert output.lesion_logits.shape == image.shape
    else:
        assert output.lesion_logits is None
        assert output.scale_logits is None
    if "classification" in entry.tasks:
        assert output.class_logits.shape == (1, 3)
        assert output.class_weight.shape == (
            3,
            sum(maps.shape[1] for maps in output.class_features),
        )
    else:
        assert output.class_logits is output.class_features is output.class_weight is None
    JointLoss(entry.loss)(output, mask, diagnosis).total.backward()
    still = [key for key, value in network.named_parameters() if value.grad is None]
    assert still == []


@pytest.mark.parametrize("name", ["only_segmentation", "unet", "resnet50"])
def test_a_task_that_the_network_lacks_is_refused(name):
    network = registry.entry(name).build(width=SLIM)
    (lacking,) = {"segmentation", "classification"} - set(network.tasks)
    with pytest.raises(ValueError, match=f"built for {network.tasks[0]}"):
        network(torch.zeros(1, 1, 32, 32, 32), tasks=(lacking,))
    with torch.no_grad():
        network(torch.zeros(1, 1, 32, 32, 32), tasks=network.tasks)


@pytest.mark.parametrize("name", ["joint", *BASELINES])
def test_width_scales_the_channels(name):
    sizes = []
    for width in (0.25, 0.5, 1.0):
        with torch.device("meta"):
            network = registry.entry(name).build(width=width)
        sizes.append(sum(value.numel() for value in network.parameters()))
    # Weights of a convolution grow with the square; few layers have a fixed side.
    assert 3 < sizes[1] / sizes[0] < 4.2
    assert 3 < sizes[2] / sizes[1] < 4.2


def test_full_width_is_the_default_architecture():
    assert JointConfig().scaled(1.0) == JointConfig()
    assert registry.entry("joint").build(width=0.5).config == JointConfig().scaled(0.5)
    classes = ("MS", "NMOSD", "HC")
    assert registry.entry("only_local").build(classes, SLIM).config.classes == classes


@pytest.mark.parametrize("name", ["joint", "unet", "resnet50"])
def test_an_impossible_width_is_refused(name):
    with pytest.raises(ValueError, match="width must be above 0"):
        registry.entry(name).build(width=0)


def test_listing_the_networks_is_light():
    code = (
        "import sys; from msnmo_bids.model import registry\n"
        "registry.names(4), registry.entry('resnet50').label, registry.entry('joint').loss\n"
        "print({'torch', 'monai', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["joint", *sorted(set(BASELINES) - {"resnet101", "resnet152"})])
def test_the_number_of_input_channels_stands_in_one_place(name, monkeypatch):
    registry.entry(name).build(width=SLIM)  # what it needs is imported
    for module in list(sys.modules.values()):
        if "INPUT_CHANNELS" in vars(module):
            monkeypatch.setattr(module, "INPUT_CHANNELS", 2)
    network = registry.entry(name).build(width=SLIM)
    network_size(network, 32)
    with pytest.raises(ValueError, match=r"must be \(B, 2, D, H, W\)"):
        network(torch.zeros(1, 1, 32, 32, 32))
