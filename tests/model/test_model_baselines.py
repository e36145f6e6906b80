"""The published networks: MONAI's own, up to normalisation and width."""

from __future__ import annotations

import pytest
import torch
from monai.networks import nets
from torch import nn

from msnmo_bids.model.baselines import BUILDERS, build_baseline
from msnmo_bids.model.cam import class_activation_maps, combined_cam
from msnmo_bids.model.config import LESION_PRIOR

SLIM = 0.25
SEGMENTING = ("unet", "vnet", "attention_unet")
CLASSIFYING = tuple(name for name in BUILDERS if name not in SEGMENTING)

# As MONAI builds them, with a width where it has one.
RESNET = {"n_input_channels": 1, "num_classes": 2, "conv1_t_stride": 2, "bias_downsample": False}
THEIRS = {
    "unet": lambda width: nets.BasicUNet(
        out_channels=1, features=channels(width, 32, 32, 64, 128, 256, 32), norm="batch"
    ),
    "vnet": lambda width: nets.VNet(),
    "attention_unet": lambda width: nets.AttentionUnet(
        3, 1, 1, channels(width, 16, 32, 64, 128, 256), (2, 2, 2, 2)
    ),
    "resnet50": lambda width: nets.resnet50(widen_factor=width, **RESNET),
    "resnet101": lambda width: nets.resnet101(widen_factor=width, **RESNET),
    "resnet152": lambda width: nets.resnet152(widen_factor=width, **RESNET),
    "densenet121": lambda width: nets.DenseNet121(
        3, 1, 2, init_features=int(64 * width), growth_rate=int(32 * width)
    ),
    "senet50": lambda width: nets.SEResNet50(spatial_dims=3, in_channels=1, num_classes=2),
}


def channels(width, *counts):
    return [int(count * width) for count in counts]


@pytest.mark.parametrize("name", BUILDERS)
def test_parameters_are_monais(name):
    with torch.device("meta"):
        ours, theirs = BUILDERS[name](2, 1.0), THEIRS[name](1)
    shapes = [[tuple(p.shape) for p in network.parameters()] for network in (ours, theirs)]
    assert sorted(shapes[0]) == sorted(shapes[1])


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("unet", 0.5),
        ("vnet", 1),
        ("attention_unet", 0.5),
        ("resnet50", 0.25),
        ("resnet101", 0.25),
        ("resnet152", 0.25),
        ("densenet121", 0.25),
    ],
)
def test_outputs_are_monais(name, width):
    networks = []
    for build in (lambda: BUILDERS[name](2, width), lambda: THEIRS[name](width)):
        torch.manual_seed(1)
        networks.append(build().eval())
    ours, theirs = networks
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        expected = theirs(image)
        output = ours(image)
    if name in SEGMENTING:
        # The last bias alone is set: it moves all logits alike.
        moved = output.lesion_logits - expected
        torch.testing.assert_close(moved, moved.mean().expand_as(moved), rtol=1e-4, atol=1e-4)
    else:
        torch.testing.assert_close(output.class_logits, expected, rtol=1e-4, atol=1e-5)


def test_output_of_the_senet_is_monais():
    theirs = THEIRS["senet50"](1).eval()
    ours = BUILDERS["senet50"](2, 1.0).eval()
    stages = (theirs.layer0, theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)
    for stage, copy in zip(stages, ours.features, strict=True):
        copy.load_state_dict(stage.state_dict())
    ours.head.load_state_dict(theirs.last_linear.state_dict())
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(image).class_logits, theirs(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", BUILDERS)
def test_batch_normalization_is_replaced(name):
    with torch.device("meta"):
        modules = list(build_baseline(name).modules())
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in modules)
    norms = [module for module in modules if isinstance(module, nn.GroupNorm)]
    assert norms
    for norm in norms:
        size = norm.num_channels // norm.num_groups
        assert norm.num_channels > 1
        assert size == 1 if name in SEGMENTING else size >= 8


@pytest.mark.parametrize("name", SEGMENTING)
def test_untrained_segmentation_starts_at_the_lesion_prior(name):
    network = build_baseline(name, width=SLIM)
    last = [module for module in network.modules() if isinstance(module, nn.Conv3d)][-1]
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        probability = network(torch.randn(1, 1, 32, 32, 32)).lesion_probability
    torch.testing.assert_close(probability, torch.full_like(probability, LESION_PRIOR))


@pytest.mark.parametrize("name", BUILDERS)
def test_training_on_one_scan_is_what_the_network_does_afterwards(name):
    """Neither the other scan of the batch nor the switch to evaluation changes an output."""
    network = build_baseline(name, width=SLIM).train()
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    image = torch.randn(2, 1, 32, 32, 32) * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1, 1)
    with torch.no_grad():
        together, alone = network(image), network(image[1:])
        later = network.eval()(image[1:])
    field = "lesion_logits" if name in SEGMENTING else "class_logits"
    expected = getattr(together, field)[1:]
    torch.testing.assert_close(getattr(alone, field), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(getattr(later, field), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet50", "densenet121", "senet50"])
def test_classification_learns_from_one_scan_at_a_time(name):
    """Batch normalisation would refuse a map of one voxel, and know little of a larger one."""
    network = build_baseline(name, width=SLIM)
    images, diagnosis = torch.randn(2, 1, 32, 32, 32) * 0.5, torch.tensor([0, 1])
    images[0, :, 6:10, 8:12, 8:11] += 2
    images[1, :, 8:20, 10:24, 6:18] += 2
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(24):
        one = slice(step % 2, step % 2 + 1)
        loss = nn.functional.cross_entropy(network(images[one]).class_logits, diagnosis[one])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        logits = network.eval()(images).class_logits
    assert nn.functional.cross_entropy(logits, diagnosis) < 0.4


@pytest.mark.parametrize("name", CLASSIFYING)
def test_class_activation_maps_add_up_to_the_logits(name):
    network = build_baseline(name, classes=3, width=SLIM).eval()
    sides = (64, 32, 48)
    with torch.no_grad():
        output = network(torch.randn(1, 1, *sides))
    for index in range(3):
        (maps,) = class_activation_maps(output.class_features, output.class_weight, index)
        expected = output.class_logits[:, index] - network.head.bias[index]
        torch.testing.assert_close(maps.mean(dim=(1, 2, 3, 4)), expected, rtol=1e-3, atol=1e-4)
    assert combined_cam(output.class_features, output.class_weight, sides).shape == (1, 3, *sides)


@pytest.mark.parametrize("name", BUILDERS)
def test_sides_that_do_not_fit_are_refused(name):
    with torch.device("meta"):
        network = build_baseline(name, width=SLIM)
        for sides in ((16, 32, 32), (40, 32, 32)):
            with pytest.raises(ValueError, match="multiples of 16 and at least 32, not"):
                network(torch.zeros(1, 1, *sides))
        output = network(torch.zeros(2, 1, 32, 48, 160))
    if name in SEGMENTING:
        assert output.lesion_logits.shape == (2, 1, 32, 48, 160)
    else:
        assert output.class_logits.shape == (2, 2)


# One of each kind of layer: bfloat16 is slow where the processor lacks it.
@pytest.mark.parametrize("name", ["attention_unet", "resnet50", "densenet121", "senet50"])
@pytest.mark.usefixtures("without_onednn")
def test_bfloat16_autocast(name):
    network = build_baseline(name, width=SLIM)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.randn(1, 1, 32, 32, 32))
    values = output.lesion_logits if name in SEGMENTING else output.class_logits
    assert values.isfinite().all()
    assert name in SEGMENTING or values.dtype == torch.float32
    values.float().sum().backward()
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"network": "vnet", "width": -1.0}, "width must be above 0"),
        ({"network": "resnet50", "classes": 1}, "classes must be two or more"),
    ],
)
def test_impossible_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_baseline(**arguments)
