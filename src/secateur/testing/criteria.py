"""What every saliency criterion promises, of channels, of single weights and of residual blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from secateur.compression.block_saliency import block_saliencies
from secateur.compression.compensation.gram import grams_of
from secateur.compression.criteria import METHODS, Method, available_methods
from secateur.compression.criteria.blocks import BLOCK_METHODS, BlockMethod
from secateur.compression.criteria.weights import WEIGHT_METHODS, WeightMethod
from secateur.compression.groups import FoundGroups, find_groups
from secateur.compression.saliency import compute_saliencies
from secateur.compression.weight_saliency import weight_saliencies
from secateur.records import Group, Workload
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


class WeightCriterionContract:
    """Subclass it, and set `name` (or override it as a fixture) to the name in the registry of criteria of single weights."""

    name: str

    @pytest.fixture
    def criterion_name(self) -> str:
        """The name, as in `weights/NAME`."""
        return self.name

    @pytest.fixture
    def criterion(self, criterion_name: str) -> WeightMethod:
        """The entry of the registry."""
        return WEIGHT_METHODS[criterion_name]

    @pytest.fixture
    def example(self) -> Workload:
        """The workload whose weights are scored."""
        return workload()

    @pytest.fixture
    def groups(self, example: Workload) -> Sequence[Group]:
        """Its groups, with the layers whose channels must stay."""
        found = find_groups(example.build_model(), example.example_inputs)
        return (*found.groups, *found.fixed)

    def scores_of(self, criterion_name: str, example: Workload, groups: Sequence[Group]) -> dict[str, Tensor]:
        """Group → scores."""
        model = example.build_model()
        grams = grams_of(model, groups, example, 64) if WEIGHT_METHODS[criterion_name].needs_grams else {}
        computed = weight_saliencies(model, groups, [criterion_name], example, grams)
        return {group: by[f"weights/{criterion_name}"] for group, by in computed.items()}

    def test_one_finite_score_a_weight_and_none_below_zero(
        self, criterion_name: str, example: Workload, groups: Sequence[Group]
    ) -> None:
        scores = self.scores_of(criterion_name, example, groups)
        assert scores.keys() == {group.name for group in groups}
        for group in groups:
            weights = sum(len(own.rows) * own.inputs * own.kernel for own in group.weights)
            assert scores[group.name].shape == (weights,)
            assert scores[group.name].isfinite().all()
            assert (scores[group.name] >= 0).all(), "global thresholds compare sums of scores"
        assert any(float(s.max()) > float(s.min()) for s in scores.values()), "weights are told apart"

    def test_the_same_network_gets_the_same_scores(
        self, criterion_name: str, example: Workload, groups: Sequence[Group]
    ) -> None:
        first, again = (self.scores_of(criterion_name, example, groups) for _ in range(2))
        for group, scores in first.items():
            torch.testing.assert_close(again[group], scores, rtol=1e-5, atol=1e-7)

    def test_layers_without_a_gram_matrix_are_scored_too(
        self, criterion_name: str, example: Workload, groups: Sequence[Group]
    ) -> None:
        computed = weight_saliencies(example.build_model(), groups, [criterion_name], example, {})
        assert all(by.keys() == {f"weights/{criterion_name}"} for by in computed.values())

    def test_the_network_is_left_as_it_was(
        self, criterion_name: str, example: Workload, groups: Sequence[Group]
    ) -> None:
        model = example.build_model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self.scores_of(criterion_name, example, groups)
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
        assert not any(module.training for module in model.modules())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())

    def test_it_says_what_it_is(self, criterion: WeightMethod) -> None:
        assert criterion.summary
        assert "\n" not in criterion.summary


class BlockCriterionContract:
    """Subclass it, and set `name` (or override it as a fixture) to the name in the registry of criteria of residual blocks."""

    name: str

    @pytest.fixture
    def criterion_name(self) -> str:
        """The name, as in `depth/NAME`."""
        return self.name

    @pytest.fixture
    def criterion(self, criterion_name: str) -> BlockMethod:
        """The entry of the registry."""
        return BLOCK_METHODS[criterion_name]

    @pytest.fixture
    def example(self) -> Workload:
        """The workload whose blocks are scored."""
        return workload()

    @pytest.fixture
    def blocks(self, example: Workload) -> Sequence[Group]:
        """Its residual blocks."""
        return find_groups(example.build_model(), example.example_inputs).blocks

    @pytest.fixture
    def scores(self, criterion_name: str, example: Workload, blocks: Sequence[Group]) -> Mapping[str, Tensor]:
        """Block → score."""
        computed = block_saliencies(example.build_model(), blocks, [criterion_name], example)
        return {block: by[f"depth/{criterion_name}"] for block, by in computed.items()}

    def test_one_finite_score_a_block_and_none_below_zero(
        self, scores: Mapping[str, Tensor], blocks: Sequence[Group]
    ) -> None:
        assert scores.keys() == {block.name for block in blocks}
        for score in scores.values():
            assert score.shape == (1,)
            assert score.isfinite().all()
            assert (score >= 0).all(), "global thresholds compare sums of scores"
        assert any(float(score) > 0 for score in scores.values()), "a block is worth something"

    def test_the_same_network_gets_the_same_scores(
        self, criterion_name: str, scores: Mapping[str, Tensor], example: Workload, blocks: Sequence[Group]
    ) -> None:
        again = block_saliencies(example.build_model(), blocks, [criterion_name], example)
        for block, by in again.items():
            torch.testing.assert_close(by[f"depth/{criterion_name}"], scores[block], rtol=1e-5, atol=1e-7)

    def test_the_network_is_left_as_it_was(
        self, criterion_name: str, example: Workload, blocks: Sequence[Group]
    ) -> None:
        model = example.build_model()
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        block_saliencies(model, blocks, [criterion_name], example)
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
        assert not any(module.training for module in model.modules())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())

    def test_it_says_what_it_is(self, criterion: BlockMethod) -> None:
        assert criterion.summary
        assert "\n" not in criterion.summary
