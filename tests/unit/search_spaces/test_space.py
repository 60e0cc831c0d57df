from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from invented import narrowed
from nets import images, network
from secateur.compression.groups import find_groups
from secateur.definition import SearchSpaceDefinition
from secateur.errors import DefinitionError
from secateur.records import Candidate, Edit
from secateur.search_spaces import build_space

FOUND = find_groups(network("residual"), (images(),))
"""Groups conv1 (8), layer1.x.conv1 (8), layer2.0.conv1, layer2.0.conv2, layer2.1.conv1 (16)."""


def space(*rules, exclude=(), step=1):
    definition = SearchSpaceDefinition.model_validate({"groups": list(rules), "exclude": list(exclude)})
    return build_space(definition, FOUND, lambda: step)


RULE = {"methods": ["l1", "l2"], "multiple_of": 4, "at_least": 4}


def test_widths_are_multiples_within_the_range():
    made = space(RULE | {"removed": [0.0, 0.6]})
    assert made.choices["conv1"].widths == (8, 4)
    assert made.choices["layer2.0.conv1"].widths == (16, 12, 8)
    assert made.choices["layer2.0.conv1"].removed == (0.0, 0.5)


def test_a_lowest_removed_fraction_is_a_demand():
    """The whole width is not offered, so no candidate leaves a group as it is."""
    made = space(RULE | {"removed": [0.5, 0.8]})
    assert made.choices["layer2.0.conv1"].widths == (8, 4)
    assert made.choices["layer2.0.conv1"].removed == (0.5, 0.75)
    assert not made.whole
    assert made.size == 2 ** sum(len(c.widths) == 1 for c in made.choices.values()) * 4 ** sum(
        len(c.widths) == 2 for c in made.choices.values()
    )
    rng = np.random.default_rng(0)
    candidates = [made.random(rng), made.uniform(0.0, "l2"), made.mildest(), made.smallest()]
    candidates.append(made.ranked(0.0, "l1", saliencies(made)))
    for candidate in candidates:
        assert all(1 - candidate.width(g.name, g.width) / g.width >= 0.5 for g in made.groups)
        values = made.values(candidate)
        assert made.candidate(values) == candidate
        for parameter in made.parameters():
            assert parameter.names or parameter.low <= values[parameter.name] <= parameter.high
    assert space(RULE).whole
    assert space(RULE).mildest() == space(RULE).dense()


def test_a_group_that_cannot_lose_that_much_stays_whole_with_the_reason():
    made = space({"match": "layer1.*", "methods": ["l1"], "multiple_of": 4, "removed": [0.6, 0.8]}, RULE)
    reasons = {e.name: e.reason for e in made.excluded}
    assert "removed [0.6, 0.8] leave no choice" in reasons["layer1.0.conv1"]


def test_a_candidate_of_another_space_is_taken_over_as_far_as_it_goes():
    there, here = space(RULE), space({"match": "layer2.*", "methods": ["l2"], "multiple_of": 8})
    adapted = here.adapted(there.uniform(0.75, "l1"))
    assert adapted == narrowed(dict.fromkeys(here.choices, 8), "l2"), "the nearest width, and a method that there is"
    assert here.adapted(narrowed({"conv1": 4}, "l1")) is None, "nothing of it is here"
    assert here.adapted(here.uniform(0.5, "l2")) == here.uniform(0.5, "l2")


def test_the_first_rule_that_matches_decides():
    made = space({"match": "layer2.*", "methods": ["fpgm"], "multiple_of": 8}, RULE)
    assert made.choices["layer2.1.conv1"].methods == ("fpgm",)
    assert made.choices["layer2.1.conv1"].widths == (16, 8)
    assert made.choices["conv1"].methods == ("l1", "l2")


def test_every_group_is_either_a_choice_or_excluded_with_a_reason():
    made = space({"match": "layer1.*", **RULE}, exclude=["layer1.0.bn1"])
    names = {g.name for g in FOUND.groups} | {e.name for e in FOUND.excluded}
    reasons = {e.name: e.reason for e in made.excluded}
    assert set(made.choices) | set(reasons) == names
    assert reasons["layer1.0.conv1"] == "excluded by 'layer1.0.bn1'"
    assert reasons["conv1"] == "no rule matches it"


def test_rules_that_leave_no_choice_say_so():
    made = space({"match": "layer1.*", "methods": ["l1"], "at_least": 8}, RULE)
    reasons = {e.name: e.reason for e in made.excluded}
    assert "at_least 8" in reasons["layer1.0.conv1"]


@given(st.data())
def test_numbers_become_allowed_widths_and_come_back(data):
    made = space(RULE)
    values = {}
    for parameter in made.parameters():
        if parameter.names:
            values[parameter.name] = data.draw(st.sampled_from(parameter.names))
        else:
            values[parameter.name] = data.draw(st.floats(parameter.low, parameter.high))
    candidate = made.candidate(values)
    for name, choice in made.choices.items():
        width = candidate.width(name, choice.group.width)
        assert width in choice.widths
        assert (candidate.edit(name) is None) == (width == choice.group.width)
        off = abs(width - choice.group.width * (1 - values[f"{name}.removed"]))
        assert all(off <= abs(w - choice.group.width * (1 - values[f"{name}.removed"])) + 1e-9 for w in choice.widths)
    assert made.candidate(made.values(candidate)) == candidate


def test_planned_candidates():
    made = space(RULE)
    assert made.dense() == Candidate({})
    assert made.uniform(0.5, "l2").edit("layer2.0.conv1") == Edit("channels", 8, "l2")
    assert made.only("conv1", made.choices["conv1"].ladder[1], "l1") == narrowed({"conv1": 4}, "l1")


def test_the_number_of_choices():
    made = space({"match": "layer1.*", **RULE})
    assert made.size == (1 * 2 + 1) ** 2


@pytest.mark.parametrize(
    ("rules", "exclude", "words"),
    [
        ([RULE | {"methods": ["l1", "fgpm"]}], [], "unknown method 'fgpm'. Did you mean 'fpgm'?"),
        ([RULE | {"match": "layr1.*"}], [], "'layr1.*' matches no group of this model. Did you mean 'layer1.*'?"),
        ([RULE], ["layer9.*"], "'layer9.*' matches no group of this model."),
        ([RULE | {"types": ["Conv3d"]}], [], "no group is left to be cut"),
        ([RULE | {"at_least": 64}], [], "no group is left to be cut"),
    ],
)
def test_names_that_fit_nothing_are_errors(rules, exclude, words):
    with pytest.raises(DefinitionError) as caught:
        space(*rules, exclude=exclude)
    assert words in str(caught.value)


def saliencies(made):
    return {name: {m: torch.linspace(0.0, 2.0, c.group.width) for m in c.methods} for name, c in made.choices.items()}


def test_one_threshold_cuts_what_one_layer_writes_and_leaves_streams_whole():
    made = space(RULE | {"removed": [0.0, 0.8]})
    candidate = made.ranked(0.65, "l2", saliencies(made))
    streams = {"conv1", "layer2.0.conv2"}
    assert set(made.choices) - set(candidate.edits) == streams & set(made.choices)
    for name in set(made.choices) - streams:
        # Of the half of 8 channels, or three quarters of 16, that may go; the shares of saliency rise alike in every group.
        assert candidate.width(name, 0) == {8: 4, 16: 8}[made.choices[name].group.width]
    assert made.ranked(0.0, "l2", saliencies(made)).key == made.dense().key


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_criteria_whose_scores_are_spread_in_other_ways_remove_as_much_under_one_threshold(share):
    made = space(RULE | {"match": "*.conv1", "multiple_of": 1, "at_least": 1, "removed": [0.0, 0.75]})
    drawn = torch.Generator().manual_seed(0)
    scores = {name: torch.rand(c.group.width, generator=drawn) for name, c in made.choices.items()}
    uneven = {name: {"l1": even + 1, "l2": even**8} for name, even in scores.items()}

    def macs(candidate):
        return sum(g.macs * (1 - candidate.width(g.name, g.width) / g.width) for g in made.groups)

    most = macs(made.smallest())
    for method in ("l1", "l2"):
        assert macs(made.ranked(share, method, uneven)) / most == pytest.approx(share, abs=0.04)


def test_a_group_whose_saliency_is_nought_goes_first_and_does_not_hide_the_others():
    """A head that the loss does not see, by a criterion of the loss."""
    made = space(RULE | {"match": "*.conv1", "multiple_of": 1, "at_least": 1, "removed": [0.0, 0.75]})
    dead = next(iter(made.choices))
    scores = {name: {"l1": torch.arange(1.0, c.group.width + 1) * (name != dead)} for name, c in made.choices.items()}
    candidate = made.ranked(0.5, "l1", scores)
    kept = {name: candidate.width(name, c.group.width) / c.group.width for name, c in made.choices.items()}
    assert kept[dead] == 0.25
    assert all(0.25 < kept[name] < 1 for name in kept if name != dead)


def test_weights_that_many_zeros_tie_are_taken_together_where_that_is_nearest():
    made = space(MIXED)
    scores = {g.name: {"weights/magnitude": torch.tensor([0.0, 0.0, 0.0, 1.0]).repeat(g.width)} for g in made.groups}
    kept = {
        share: {made.ranked(share, "weights/magnitude", scores).kept(g.name, g.width) for g in made.groups}
        for share in (0.2, 0.6)
    }
    assert kept[0.2] == {1.0}
    assert kept[0.6] == {0.25}


def test_where_every_group_is_a_stream_all_of_them_are_cut():
    made = space(RULE | {"match": "conv1", "removed": [0.0, 0.8]})
    assert made.ranked(0.65, "l1", saliencies(made)) == narrowed({"conv1": 4}, "l1")


@given(st.integers(0, 50))
def test_random_draws_keep_the_rules(seed):
    made = space(RULE | {"removed": [0.25, 0.8]})
    candidate = made.random(np.random.default_rng(seed))
    for name, choice in made.choices.items():
        edit = candidate.edit(name)
        assert edit.level in choice.widths
        assert edit.by in ("l1", "l2")


def test_the_smallest_network_is_at_every_groups_narrowest():
    made = space(RULE | {"removed": [0.0, 0.5]})
    assert {made.smallest().width(g.name, g.width) / g.width for g in made.groups} == {0.5}


def test_the_measured_step_of_the_device_is_kept_and_halved_for_groups_that_are_no_wider():
    made = space({"match": "layer1.*", "methods": ["l1"], "multiple_of": 4}, RULE | {"multiple_of": "device"}, step=8)
    assert made.device_step == 8
    assert {choice.multiple for name, choice in made.choices.items() if name.startswith("layer1.")} == {4}
    for name, choice in made.choices.items():
        if not name.startswith("layer1."):
            assert choice.multiple == (8 if choice.group.width > 8 else 4)
    assert space(RULE).device_step is None, "nobody has asked for it"


MIXED = {"methods": ["l1", "n_m/magnitude", "weights/magnitude", "weights/wanda"], "multiple_of": 4, "at_least": 4}


def mixed_scores(made):
    scores = {}
    for number, group in enumerate(made.groups):
        weights = sum(len(own.rows) * own.inputs * own.kernel for own in group.weights)
        own = torch.linspace(0.0, 1.0, weights) * (number + 1)
        scores[group.name] = {
            "l1": torch.linspace(0.0, 2.0, group.width),
            "weights/magnitude": own,
            "weights/wanda": own,
        }
    return scores


def test_a_group_may_be_cut_in_any_way_that_fits_it():
    made = space(MIXED | {"zeros": [0.0, 0.5], "patterns": ["1:4", "2:4"]})
    stream, last = made.choices["conv1"], made.choices["linear"]
    assert stream.transforms == ("channels", "weights", "n_m")
    assert stream.methods == ("l1", "weights/magnitude", "weights/wanda", "n_m/magnitude")
    assert [option.level for option in stream.cuts("n_m/magnitude")] == ["2:4", "1:4"], "the mildest first"
    assert stream.cuts("weights/wanda")[-1].removed == pytest.approx(0.5)
    assert last.transforms == ("weights", "n_m"), "its channels are the model's output"
    assert not last.group.removable
    assert "linear" not in {excluded.name for excluded in made.excluded}
    assert all(not group.weights for group in space(RULE).groups), "nothing is gathered for masks that nobody wants"


@pytest.mark.parametrize("seed", range(5))
def test_numbers_lead_to_any_kind_of_cut_and_back(seed):
    made = space(MIXED)
    candidate = made.random(np.random.default_rng(seed))
    values = made.values(candidate)
    assert made.candidate(values) == candidate
    for parameter in made.parameters():
        assert values[parameter.name] in parameter.names or parameter.low <= values[parameter.name] <= parameter.high


def test_the_nearest_option_is_one_of_the_method():
    choice = space(MIXED).choices["conv1"]
    assert choice.nearest(0.45, "n_m/magnitude").level == "2:4"
    assert choice.nearest(0.45, "l1").level == 4
    assert choice.nearest(0.45, "weights/wanda").level == 550
    assert choice.nearest(0.1, "n_m/magnitude").transform is None


def test_one_threshold_over_all_weights_spares_groups_of_large_ones():
    """And one for each group where scores of different layers say nothing of one another."""
    made = space(MIXED)
    scores = mixed_scores(made)
    kept = [made.ranked(0.2, "weights/magnitude", scores).kept(g.name, g.width) for g in made.groups]
    assert kept == sorted(kept)
    assert kept[0] < kept[-1] - 0.2
    even = [made.ranked(0.2, "weights/wanda", scores).kept(g.name, g.width) for g in made.groups]
    assert max(even) - min(even) < 0.01


def test_a_pattern_that_fits_no_group_is_refused_with_what_fits():
    with pytest.raises(
        DefinitionError,
        match=r"'n_m/magnitude' fits no group .* 1:64 .* What fits: l1, weights/magnitude, weights/wanda",
    ):
        space(MIXED | {"patterns": ["1:64"]})


def test_blocks_of_weights_too_large_for_every_layer_are_refused_with_what_fits():
    rule = {"methods": ["weights/magnitude", "blocks/magnitude"], "block": "64x64"}
    with pytest.raises(
        DefinitionError, match=r"'blocks/magnitude' fits no group .* 64x64 .* What fits: weights/magnitude"
    ):
        space(MIXED | rule)


def test_depth_is_refused_where_no_block_can_be_left_out():
    found = find_groups(network("VGG"), (images(),))
    declared = SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l1", "depth/influence"]}]})
    with pytest.raises(DefinitionError, match=r"'depth/influence' fits no group .* residual block .* What fits: l1\."):
        build_space(declared, found)


def test_a_front_of_masks_is_taken_over():
    made, other = space(MIXED), space(MIXED | {"methods": ["weights/magnitude"]})
    candidate = Candidate({"conv1": (Edit("weights", 300, "wanda"),), "linear": (Edit("n_m", "2:4", "magnitude"),)})
    assert made.adapted(candidate) == candidate
    assert other.adapted(candidate) == Candidate(
        {"conv1": (Edit("weights", 300, "magnitude"),), "linear": (Edit("weights", 500, "magnitude"),)}
    )


def of_blocks(*rules, **changes):
    """A network of two blocks that may be left out, and one that halves."""
    declared = SearchSpaceDefinition.model_validate({"groups": list(rules)} | changes)
    return build_space(declared, FOUND)


def test_a_block_is_one_choice_beside_those_of_its_channels():
    made = of_blocks({"methods": ["l1", "depth/influence"], "removed": [0.3, 0.8]})
    block = made.choices["layer1.1"]
    assert block.methods == ("depth/influence",)
    assert [option.removed for option in block.ladder] == [0.0, 1.0], "it may stay, however many channels must go"
    assert not made.choices["conv1"].whole
    values = made.values(made.smallest())
    assert made.candidate(values) == made.smallest()
    assert made.smallest().edits["layer1.1"] == (Edit("depth", 0, "influence"),)
    assert made.smallest().edits["layer1.1"][0].text(1) == "left out"


def names_of_blocks(made):
    return [name for name, choice in made.choices.items() if choice.group.block]


def test_rules_cover_blocks_by_their_methods_and_types():
    blocks, layers = {"methods": ["depth/influence"]}, {"methods": ["l1"]}
    every = ["layer1.0", "layer1.1", "layer2.1"]
    assert names_of_blocks(of_blocks(blocks, layers)) == every
    assert "conv1" in of_blocks(blocks, layers).choices, "a rule for blocks alone says nothing about layers"
    assert not names_of_blocks(of_blocks(layers))
    assert names_of_blocks(of_blocks(blocks | {"types": ["BasicBlock"]}, layers)) == every
    with pytest.raises(DefinitionError, match="no residual block that it covers can be left out"):
        of_blocks(blocks | {"types": ["Bottleneck"]}, layers)
    assert names_of_blocks(of_blocks(blocks | {"match": "layer1.*"}, layers)) == every[:2]
    assert names_of_blocks(of_blocks(blocks, layers, exclude=["layer1.0.conv1", "layer2.1"])) == ["layer1.1"]


def test_blocks_of_low_scores_leave_first_and_fractions_of_blocks_are_spread():
    made = of_blocks({"methods": ["l1", "depth/influence"]})
    scores = {
        name: {"depth/influence": torch.tensor([s])}
        for name, s in zip(names_of_blocks(made), (0.2, 0.1, 0.7), strict=True)
    }
    left_out = {share: [*made.ranked(share, "depth/influence", scores).edits] for share in (0.1, 0.3, 0.6, 0.95)}
    two = ["layer1.0", "layer1.1"]
    assert left_out == {0.1: [], 0.3: ["layer1.1"], 0.6: two, 0.95: [*two, "layer2.1"]}
    assert len(made.uniform(1 / 3, "depth/influence").edits) == 1
    assert [*made.uniform(0.99, "depth/influence").edits] == names_of_blocks(made)
    assert not made.uniform(0.625, "l1").edits.keys() & set(names_of_blocks(made))
