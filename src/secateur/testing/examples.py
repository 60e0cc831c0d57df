"""Small networks and data that the suites use: seconds, no download."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from secateur.records import Workload
from secateur.workloads.resnet import ResNet
from secateur.workloads.roles import split_roles
from secateur.workloads.scores import top1

CLASSES = 5


def network() -> nn.Module:
    """A small residual network for images (3, 8, 8), five classes, seeded; its batch norms are not those of a fresh one."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResNet((8, 16), 1, classes=CLASSES, padded_shortcut=False)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for tensor, low in ((layer.weight, 0.5), (layer.bias, -0.3), (layer.running_var, 0.5)):
                    assert tensor is not None
                    tensor.copy_(low + torch.rand(tensor.shape, generator=generator))
    return model.eval()


def images(count: int, seed: int = 1) -> Tensor:
    """(count, 3, 8, 8), standard normal."""
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def workload() -> Workload:
    """The network with labels that are its own answers, every ninth of them another class."""
    model, inputs = network(), images(600)
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    labels[::9] = (labels[::9] + 1) % CLASSES
    return Workload(
        name="example",
        build_model=lambda: model,
        example_inputs=(inputs[:2],),
        data=split_roles(TensorDataset(inputs, labels)),
        loss=torch.nn.functional.cross_entropy,
        score=top1,
    )
