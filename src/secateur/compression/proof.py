"""The proof of groups: without any of their channels a network computes what it computes with these channels zeroed.

A coupling can be right for one set of channels and wrong for the next (halves of one convolution that gate each other, attention
heads, norms over channel groups). So a group is proven with seeded random sets of several sizes, from one channel to all but one,
together with all other groups and in random subsets of them. The groups share their samples: a network whose groups are all right
takes at most `SAMPLES` pairs of forward passes; where one fails, it is bisected down to the groups that are to blame, and groups
that are built alike are tried next. All groups together are proven on whole inputs; the other samples have inputs that cost less.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from secateur.compression.checks import disagreement
from secateur.compression.plan import apply, reference
from secateur.compression.short_inputs import shortened
from secateur.compression.transforms.channels import without
from secateur.errors import first_line
from secateur.records import Group, Plan
from secateur.workloads.pytrees import PyTree, call, mapped, rows, tensors

SHARES = (0.0, 1 / 3, 1 / 2, 2 / 3)
"""Of what may go from a group while all others lose channels too; 0 stands for one or two channels."""
SUBSETS = 4
"""Into how many disjoint random subsets the groups are divided to lose all that may go.

The rest of the network is whole then: where every layer is down to a few channels, little of an error arrives at the output.
"""
SAMPLES = len(SHARES) + SUBSETS

Sample = Mapping[str, Sequence[int]]
"""Group name → root channels that leave."""


class Proof:
    """Compares networks without channels with networks in which they are zero, on an example and on noise."""

    def __init__(
        self, model: nn.Module, example_inputs: PyTree, watch: Callable[[float], object] = lambda _: None
    ) -> None:
        """model: in evaluation mode, on the CPU. example_inputs: as in `Workload`. watch: is told what share is done."""
        self._model, self._watch = model, watch
        whole, outputs = _two_inputs(model, example_inputs)
        self._inputs = [whole, *_cheaper(model, whole, outputs)]

    def proven(self, groups: Sequence[Group]) -> tuple[list[Group], dict[str, str]]:
        """The groups that may be cut, in any combination, and the reasons of those that must not be.

        Where one channel is too few for the model to run and two are enough (it squeezes dimensions of one, say), the group
        comes back with `least` raised.
        """
        refuted: dict[str, str] = {}
        for alike in _built_alike(_likely(groups)):
            for group in alike:
                reason = self.alone(group)
                if reason is None:
                    break  # the samples will show it where the others are different
                refuted[group.name] = reason
        proven = {group.name: group for group in groups if group.name not in refuted}
        drawn = samples(list(proven.values()))
        for number, sample in enumerate(drawn):
            self._watch(number / len(drawn))
            suspects = [group for name, group in proven.items() if name in sample]
            sample |= {group.name: sample[group.name][: group.width - group.least] for group in suspects}
            while reason := self._disproof(suspects, sample, number):
                culprit, reason = self._culprit(suspects, sample, reason, number)
                gone = sample[culprit.name]
                if len(gone) == culprit.width - culprit.least > 1 and not self._disproof(
                    [culprit], {culprit.name: gone[1:]}, number
                ):
                    proven[culprit.name] = replace(culprit, least=culprit.least + 1)
                    sample[culprit.name] = gone[1:]
                    continue
                wrong = {culprit.name: reason}
                wrong |= {
                    group.name: disproof
                    for group in suspects
                    if group is not culprit
                    and build_of(group) == build_of(culprit)
                    and (disproof := self._disproof([group], sample, number))
                }
                refuted |= wrong
                proven = {name: group for name, group in proven.items() if name not in wrong}
                suspects = [group for group in suspects if group.name not in wrong]
        return list(proven.values()), refuted

    def alone(self, group: Group) -> str | None:
        """Why a group must not be cut, where a random half of it alone shows that."""
        return self._disproof([group], {group.name: _drawn(group, 1 / 2, "alone")}, 1)

    def disproof_together(self, groups: Sequence[Group]) -> str | None:
        """Why groups that were proven once are not right here, by two samples of them all; None where they are."""
        repeated = enumerate(samples(groups)[:2])
        return next((reason for number, sample in repeated if (reason := self._disproof(groups, sample, number))), None)

    def disproof(self, plan: Plan, number: int = 0) -> str | None:
        """Why a plan is wrong, or None: the outputs of the cut network and of the reference agree.

        number: of the trial. The first one, 0, has whole inputs, the others have those that cost less, in turn.
        """
        inputs = self._inputs[(number - 1) % (len(self._inputs) - 1) + 1 if number else 0]
        try:
            with torch.no_grad():
                actual = call(apply(self._model, plan, shared=True), _anew(inputs))
                expected = call(reference(self._model, plan), _anew(inputs))
        except Exception as error:  # noqa: BLE001 # whatever the user's forward raises on the cut network is the reason
            return f"the model does not run without its channels: {type(error).__name__}: {first_line(error)}"
        if [x.shape for x in tensors(actual)] != [x.shape for x in tensors(expected)]:
            return "its channels are the model's output"
        gap = disagreement(actual, expected)
        if gap is None:
            return None
        return f"removing its channels is not the same as zeroing them: outputs differ by {gap:.2g}"

    def _disproof(self, groups: Sequence[Group], sample: Sample, number: int) -> str | None:
        if not groups:
            return None
        reason = self.disproof(without(groups, {group.name: sample[group.name] for group in groups}), number)
        norm = next((m for g in groups for m in g.members if m.kind in ("layer norm", "group norm")), None)
        if reason is None or norm is None or "not the same" not in reason:
            return reason
        return f"{reason} ('{norm.module}' normalises over these channels)"

    def _culprit(self, suspects: Sequence[Group], sample: Sample, reason: str, number: int) -> tuple[Group, str]:
        """Bisect groups that fail together to one that is to blame; where no half fails, it fails with the other half only."""
        suspects, company = list(suspects), list[Group]()
        while len(suspects) > 1:
            middle = len(suspects) // 2
            first, second = suspects[:middle], suspects[middle:]
            if disproof := self._disproof([*company, *first], sample, number):
                suspects, reason = first, disproof
            elif disproof := self._disproof([*company, *second], sample, number):
                suspects, reason = second, disproof
            else:
                company, suspects = [*company, *first], second
        if company:
            return suspects[0], f"together with {', '.join(g.name for g in company[:3])}: {reason}"
        return suspects[0], reason


def samples(groups: Sequence[Group]) -> list[dict[str, tuple[int, ...]]]:
    """The sets of channels that groups are proven with: all groups at once, then disjoint subsets of them.

    Each group meets every share once (neighbours different ones at a time), and the loss of all that may go. The same groups give
    the same samples.
    """
    together = [
        {
            group.name: _drawn(group, SHARES[(number + position) % len(SHARES)], str(number))
            for position, group in enumerate(groups)
        }
        for number in range(len(SHARES))
    ]
    shuffled = random.Random("subsets").sample(groups, len(groups))  # noqa: S311 # the same at every call; no secrets
    subsets = [shuffled[start::SUBSETS] for start in range(min(SUBSETS, len(groups)))]
    return [*together, *({group.name: _drawn(group, 1.0, "all that may go") for group in subset} for subset in subsets)]


def _drawn(group: Group, share: float, purpose: str) -> tuple[int, ...]:
    """A random set of a group's removable channels, at least one of them; odd in number where it would be half of them."""
    draw = random.Random(f"{purpose} {group.name}")  # noqa: S311 # the same at every call; no secrets
    most = group.width - group.least
    count = round(share * most) if share else draw.choice((1, 2))
    if 2 * count == group.width and count < most:
        count += draw.choice((-1, 1))
    return tuple(sorted(draw.sample(group.removable, min(max(count, 1), most))))


def _likely(groups: Sequence[Group]) -> list[Group]:
    """Groups that are usually wrong, and cost a bisection in each sample if they are: behind a norm, and the model's output."""
    return [
        group
        for group in groups
        if group is groups[-1] or any(m.kind in ("layer norm", "group norm") for m in group.members)
    ]


def _built_alike(groups: Sequence[Group]) -> Iterator[list[Group]]:
    alike: dict[object, list[Group]] = defaultdict(list)
    for group in groups:
        alike[build_of(group)].append(group)
    yield from alike.values()


def build_of(group: Group) -> object:
    """Equal for groups of repeated blocks: their layers differ in numbers in their names."""
    members = frozenset((re.sub(r"\d+", "", m.module), m.side, m.kind, len(m.indices)) for m in group.members)
    return group.layer_type, group.width, members


def _two_inputs(model: nn.Module, example_inputs: PyTree) -> tuple[PyTree, PyTree | None]:
    """One example and one sample of noise (less noise, or none, where the model does not take it); and the outputs."""
    for strength in (1.0, 0.1):
        inputs = mapped(partial(_with_noise, strength), example_inputs)
        if (outputs := _outputs(model, inputs)) is not None:
            return inputs, outputs
    inputs = mapped(lambda x: torch.cat([x[:1], x[:1]]), example_inputs)
    return inputs, _outputs(model, inputs)


def _cheaper(model: nn.Module, inputs: PyTree, outputs: PyTree | None) -> list[PyTree]:
    """Shorter ones; where the model does not take those, each alone; the same two where that gives something else."""
    for short in shortened(inputs):
        if _outputs(model, short) is not None:
            return [short]
    each = [rows(inputs, slice(number, number + 1)) for number in range(2)]
    alone = _outputs(model, each[0])
    same = alone is not None and outputs is not None and disagreement(alone, rows(outputs, slice(1))) is None
    return each if same else [inputs]


@torch.no_grad()
def _outputs(model: nn.Module, inputs: PyTree) -> PyTree | None:
    """What the model gives for inputs; None where it does not take them, or gives what is not finite."""
    try:
        outputs = call(model, _anew(inputs))
    except Exception:  # noqa: BLE001 # whatever the user's forward raises for inputs that it does not take
        return None
    return outputs if all(torch.isfinite(x).all() for x in tensors(outputs)) else None


def _anew(inputs: PyTree) -> PyTree:
    """A copy: a forward pass may change what it is given."""
    return mapped(torch.clone, inputs)


def _with_noise(strength: float, examples: Tensor) -> Tensor:
    """The first example, then Gaussian noise in its shape, or itself with some; integers (token numbers) are kept as they are."""
    example = examples[:1]
    if not example.is_floating_point():
        return torch.cat([example, example])
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    return torch.cat([example, noise if strength == 1.0 else example * (1 + strength * noise)])
