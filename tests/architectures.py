"""What holds for every architecture that can be cut, as checks of one network; `benchmarks/architectures.py` prints what they find."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from secateur.compression.checks import ROUNDING
from secateur.compression.costs import parameter_count, parameters_after, within_reach
from secateur.compression.groups import FoundGroups, find_groups
from secateur.compression.plan import apply, reference
from secateur.compression.transforms.channels import without
from secateur.evaluators.onnx_export import export
from secateur.evaluators.runtimes import host_for
from secateur.records import Plan
from secateur.workloads.pytrees import call, tensors
from zoo import Architecture


class Subject:
    """One network of the zoo, with its groups."""

    def __init__(self, architecture: Architecture) -> None:
        self.model = architecture.model()
        self._inputs = architecture.inputs

    @cached_property
    def found(self) -> FoundGroups:
        return find_groups(self.model, self._inputs(2, 0))

    @cached_property
    def reach(self) -> tuple[float, float]:
        """Shares of parameters and of MACs in layers that can lose channels."""
        return within_reach(self.model, self.found.groups, self.found.costs)

    @cached_property
    def left_whole(self) -> dict[str, str]:
        """Groups that are not cut, and why; the model's output is not among them."""
        return {e.name: e.reason for e in self.found.excluded if e.reason != "its channels are the model's output"}

    def candidates(self, count: int) -> Iterator[Plan]:
        """Random legal ones: any groups, any width."""
        draw = random.Random(5)
        for _ in range(count):
            groups = draw.sample(self.found.groups, draw.randint(1, len(self.found.groups)))
            yield without(
                groups, {g.name: draw.sample(g.removable, draw.randint(1, g.width - g.least)) for g in groups}
            )

    def half(self) -> nn.Module:
        """Without half of the channels of every group."""
        groups = self.found.groups
        return apply(self.model, without(groups, {g.name: g.removable[: (g.width - g.least + 1) // 2] for g in groups}))

    def check_cuts(self, count: int) -> None:
        """A cut network computes what the original does with zeros, and is as small as was said."""
        for plan in self.candidates(count):
            smaller = apply(self.model, plan)
            agree(self._outputs(smaller, 1), self._outputs(reference(self.model, plan), 1))
            assert parameter_count(smaller) == parameters_after(self.model, plan) < parameter_count(self.model)

    def check_onnx(self) -> None:
        """ONNX Runtime says what torch says of a cut network, for another number of samples too."""
        smaller = self.half()
        file = export(smaller, self._inputs(2, 0))
        actual = host_for("onnxruntime", {}, 1).open(file).run([x.numpy() for x in tensors(self._inputs(3, 2))])
        agree([torch.from_numpy(x) for x in actual], self._outputs(smaller, 2))

    def check_training(self) -> None:
        """A cut network learns a batch."""
        torch.manual_seed(0)
        smaller, inputs = self.half().train(), self._inputs(4, 3)
        targets = [torch.rand_like(x) for x in tensors(call(smaller, inputs))]
        optimizer = torch.optim.Adam(smaller.parameters(), 0.01)
        losses = []
        for _ in range(30):
            outputs = tensors(call(smaller, inputs))
            loss = sum((x - target).square().mean() for x, target in zip(outputs, targets, strict=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.7 * losses[0]

    @torch.no_grad()
    def _outputs(self, model: nn.Module, seed: int) -> list[Tensor]:
        return tensors(call(model, self._inputs(3, seed)))


def agree(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Outputs agree within rounding, relative to the largest value of each."""
    for x, wanted in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, wanted, rtol=ROUNDING, atol=ROUNDING * wanted.abs().max().item())
