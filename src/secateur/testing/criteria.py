"""What every saliency criterion promises."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from secateur.compression.criteria import METHODS, Method, available_methods
from secateur.compression.groups import FoundGroups, find_groups
from secateur.compression.saliency import compute_saliencies
from secateur.records import Workload
from secateur.testing.examples import workload


class CriterionContract:
    """Subclass it, and set `name` (or override it as a fixture) to the criterion's name in the registry."""

    name: str

    @pytest.fixture
    def criterion_name(self) -> str:
        """The name."""
        return self.name

    @pytest.fixture
    def criterion(self, criterion_name: str) -> Method:
        """The entry of the registry."""
        return METHODS[criterion_name]

    @pytest.fixture
    def example(self) -> Workload:
        """The workload whose channels are scored."""
        return workload()

    @pytest.fixture
    def found(self, example: Workload) -> FoundGroups:
        """Its groups."""
        return find_groups(example.build_model(), example.example_inputs)

    @pytest.fixture
    def scores(self, criterion_name: str, example: Workload, found: FoundGroups) -> Mapping[str, Tensor]:
        """Group → scores."""
        computed = compute_saliencies(example.build_model(), found.groups, [criterion_name], example)
        return {group: by[criterion_name] for group, by in computed.items()}

    def test_one_finite_score_a_channel_and_none_below_zero(
        self, scores: Mapping[str, Tensor], found: FoundGroups
    ) -> None:
        assert scores.keys() == {group.name for group in found.groups}
        for group in found.groups:
            assert scores[group.name].shape == (group.width,)
            assert scores[group.name].isfinite().all()
            assert (scores[group.name] >= 0).all(), "global thresholds compare scores of several groups"

    def test_channels_are_told_apart(self, scores: Mapping[str, Tensor]) -> None:
        assert any(float(s.max()) > float(s.min()) for s in scores.values())

    def test_the_same_network_gets_the_same_scores(
        self, criterion_name: str, scores: Mapping[str, Tensor], example: Workload, found: FoundGroups
    ) -> None:
        again = compute_saliencies(example.build_model(), found.groups, [criterion_name], example)
        for group, by in again.items():
            torch.testing.assert_close(by[criterion_name], scores[group], rtol=1e-5, atol=1e-7)

    def test_the_network_is_left_as_it_was(self, criterion_name: str, example: Workload, found: FoundGroups) -> None:
        model = example.build_model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        compute_saliencies(model, found.groups, [criterion_name], example)
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())

    def test_it_says_what_it_is(self, criterion_name: str, criterion: Method, found: FoundGroups) -> None:
        assert criterion.summary
        assert "\n" not in criterion.summary
        assert criterion_name in available_methods(found.groups[0], [criterion_name]), "the example has batch norms"
