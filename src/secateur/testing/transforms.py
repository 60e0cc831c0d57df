"""What every transform promises."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from secateur.compression.costs import layer_costs, nonzero_after, parameter_count, parameters_after
from secateur.compression.groups import FoundGroups, find_groups
from secateur.compression.masks import zeros_in
from secateur.compression.plan import apply, reference
from secateur.compression.resolution import resolve
from secateur.compression.transforms import STAGES, TRANSFORMS, Transform
from secateur.definition import GroupRule
from secateur.records import DEPTH, WEIGHTS, Candidate, Edit, Group, Plan
from secateur.testing.examples import images, network

RULE = GroupRule(methods=["random"], removed=(0.0, 0.99), zeros=(0.0, 0.99), patterns=["3:4", "2:4", "1:4"])
DRAWS = 4
"""Random plans that are tried."""


def random_scores(group: Group, generator: torch.Generator) -> dict[str, Tensor]:
    """Scores of a group's channels, of its weights and of itself."""
    weights = sum(len(own.rows) * own.inputs * own.kernel for own in group.weights)
    return {
        "random": torch.rand(group.width, generator=generator),
        f"{WEIGHTS}/random": torch.rand(weights, generator=generator),
        f"{DEPTH}/random": torch.rand(1, generator=generator),
    }


class TransformContract:
    """Subclass it, and set `name` (or override it as a fixture) to the transform's name in the registry."""

    name: str

    @pytest.fixture
    def transform_name(self) -> str:
        """The name."""
        return self.name

    @pytest.fixture
    def transform(self, transform_name: str) -> Transform:
        """The entry of the registry."""
        return TRANSFORMS[transform_name]

    @pytest.fixture
    def model(self) -> nn.Module:
        """The network that is edited."""
        return network()

    @pytest.fixture
    def found(self, model: nn.Module) -> FoundGroups:
        """Its groups."""
        return find_groups(model, (images(2),))

    def plans(self, transform: Transform, found: FoundGroups) -> list[Plan]:
        """Random levels of random groups, by random scores."""
        generator = torch.Generator().manual_seed(0)
        groups = (*found.groups, *found.blocks)
        return [self.drawn(transform, groups, generator) for _ in range(DRAWS)]

    def drawn(self, transform: Transform, groups: Sequence[Group], generator: torch.Generator) -> Plan:
        """One of them, which does something."""
        scores = {group.name: random_scores(group, generator) for group in groups}
        edits: dict[str, tuple[Edit, ...]] = {}
        while not any(edits.values()):
            for group in groups:
                levels = transform.levels(group, RULE, 1)
                chosen = int(torch.randint(-1, len(levels), (), generator=generator))
                edits[group.name] = () if chosen < 0 else (Edit(transform.name, levels[chosen], "random"),)
        return resolve(Candidate.of(edits), groups, scores)

    def test_it_is_known_by_its_name_and_has_a_stage(self, transform_name: str, transform: Transform) -> None:
        assert transform.name == transform_name
        assert transform.stage in STAGES

    def test_what_is_carried_out_computes_what_the_reference_computes(
        self, transform: Transform, model: nn.Module, found: FoundGroups
    ) -> None:
        x, changed = images(4), 0
        for plan in self.plans(transform, found):
            with torch.no_grad():
                actual = apply(model, plan)(x)
                torch.testing.assert_close(actual, reference(model, plan)(x), rtol=1e-4, atol=1e-5)
                changed += not torch.allclose(actual, model(x), atol=1e-3)
        assert changed == DRAWS, "a plan that does nothing shows nothing"

    def test_costs_are_known_exactly_before_anything_is_carried_out(
        self, transform: Transform, model: nn.Module, found: FoundGroups
    ) -> None:
        for plan in self.plans(transform, found):
            module = apply(model, plan)
            assert found.costs.after(plan) == layer_costs(module, (images(1),)).total
            assert parameters_after(model, plan) == parameter_count(module)
            zeros = sum(int(gone.sum()) for _, gone in zeros_in(module, plan.masked))
            assert nonzero_after(model, plan) == parameter_count(module) - zeros

    def test_the_mildest_level_comes_first(self, transform: Transform, model: nn.Module, found: FoundGroups) -> None:
        """Fewer parameters that are not zero are left from level to level."""
        offered = [group for group in (*found.groups, *found.blocks) if transform.levels(group, RULE, 1)]
        assert offered, "the example has room"
        for group in offered:
            scores = {group.name: random_scores(group, torch.Generator().manual_seed(1))}
            levels = transform.levels(group, RULE, 1)
            plans = [
                resolve(Candidate({group.name: (Edit(transform.name, level, "random"),)}), [group], scores)
                for level in levels
            ]
            left = [parameter_count(model), *(nonzero_after(model, plan) for plan in plans)]
            assert all(after < before for before, after in pairwise(left))

    def test_the_network_is_left_as_it_was(self, transform: Transform, model: nn.Module, found: FoundGroups) -> None:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for plan in self.plans(transform, found):
            apply(model, plan)
            reference(model, plan)
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
