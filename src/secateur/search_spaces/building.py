"""From rules and the groups of a network to what may be chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from secateur.compression.criteria import CRITERIA, Criterion
from secateur.compression.groups import FoundGroups
from secateur.compression.transforms import TRANSFORMS
from secateur.definition import GroupRule, SearchSpaceDefinition, one_of
from secateur.errors import DefinitionError, nearest
from secateur.records import BLOCKS, CHANNELS, DEPTH, N_M, WEIGHTS, Excluded, Group, named
from secateur.search_spaces.choice import UNTOUCHED, Choice, Option, rungs
from secateur.search_spaces.space import SearchSpace, all_methods


def build_space(
    definition: SearchSpaceDefinition, found: FoundGroups, device_multiple: Callable[[], int] = lambda: 1
) -> SearchSpace:
    """Apply the rules to the groups of a network: for each group, the first rule that covers it decides.

    device_multiple: asked, once, where a rule leaves the channel multiple to the device. Raises DefinitionError for unknown
    methods, for a pattern that matches nothing (naming the nearest group), and where no group is left.
    """
    _check_names(definition, found)
    step = device_multiple() if any(rule.multiple_of == "device" for rule in definition.groups) else None
    choices: dict[str, Choice] = {}
    excluded = list(found.excluded)
    every_layer = _layers((*found.groups, *found.fixed))
    for group in (*found.groups, *found.fixed, *found.blocks):
        layers = _layers([group])
        if group.block:
            layers = {group.name, *(layer for layer in every_layer if layer.startswith(f"{group.name}."))}
        pattern = next((p for p in definition.exclude if any(fnmatchcase(layer, p) for layer in layers)), None)
        rule = next((rule for rule in definition.groups if _covers(rule, group)), None)
        if pattern is not None:
            reason = f"excluded by '{pattern}'"
        elif rule is None:
            reason = "no rule matches it"
        else:
            multiple = _multiple(group, rule, step or 1)
            choice = _choice(group, rule, multiple)
            if choice.methods:
                choices[group.name] = choice
                continue
            reason = f"none of its methods ({', '.join(rule.methods)}) applies: it lacks what they need"
            if any(_suits(group, method) for method in rule.methods):
                limits = f"multiple_of {multiple}, at_least {rule.at_least} and removed {list(rule.removed)}"
                reason = f"{limits} leave no choice"
        if group.removable:  # of the others it is said already why they are not cut
            excluded.append(Excluded(group.name, group.layer_type, group.width, reason))
    if not choices:
        listed = "; ".join(f"{e.name}: {e.reason}" for e in excluded)
        raise DefinitionError(f"{definition.where('groups')}: no group is left to be cut ({listed}).")
    _check_fitting(definition, choices)
    return SearchSpace(choices, tuple(e for e in excluded if e.name not in choices), step)


def _layers(groups: Iterable[Group]) -> set[str]:
    return {part.module for group in groups for part in group.members} | {
        part.layer for group in groups for part in group.weights
    }


def _covers(rule: GroupRule, group: Group) -> bool:
    """Whether a rule is about a group: about blocks where it has a method for them, about layers where it has another.

    Types that say nothing but the default are those of layers, and leave no block aside.
    """
    if not fnmatchcase(group.name, rule.match):
        return False
    if not any((named(method)[0] == DEPTH) == group.block for method in rule.methods):
        return False
    any_type = group.block and rule.types == GroupRule.model_fields["types"].default
    return any_type or group.layer_type in rule.types


def _choice(group: Group, rule: GroupRule, multiple: int) -> Choice:
    """What a rule allows for a group; without methods where it allows nothing. Transforms in the order of the registry.

    Its group holds what these may cut and nothing else, so that nothing is gathered for the rest.
    """
    ladder: list[Option] = []
    methods: list[str] = []
    lowest = {CHANNELS: rule.removed[0], WEIGHTS: rule.zeros[0], BLOCKS: rule.zeros[0]}
    for name, transform in TRANSFORMS.items():
        suiting = [method for method in rule.methods if named(method)[0] == name and _suits(group, method)]
        levels = transform.levels(group, rule, multiple) if suiting else ()
        if levels:
            ladder += rungs(group, name, levels)
            methods += suiting
    used = {named(method)[0] for method in rule.methods} - {DEPTH}
    if group.block or all(lowest.get(name, 0.0) == 0 for name in used):
        ladder.insert(0, UNTOUCHED)
    units = {TRANSFORMS[named(method)[0]].unit for method in methods}
    offered = replace(
        group,
        members=group.members if "channels" in units else (),
        weights=group.weights if "weights" in units else (),
    )
    return Choice(offered, tuple(methods), tuple(ladder), multiple)


def _suits(group: Group, method: str) -> bool:
    """Whether a method says anything about a group."""
    transform, name = named(method)
    criterion: Criterion = CRITERIA[TRANSFORMS[transform].unit][name]
    return criterion.fits(group)


def _check_fitting(definition: SearchSpaceDefinition, choices: Mapping[str, Choice]) -> None:
    """Raises DefinitionError where a rule asks for patterns or blocks, and nothing that it covers is made for them."""
    for i, rule in enumerate(definition.groups):
        reasons = {
            N_M: f"the patterns {', '.join(rule.patterns)} are wider than what their layers read",
            BLOCKS: f"no layer has room for two blocks of {rule.block} with zeros of {list(rule.zeros)}",
            DEPTH: "no residual block that it covers can be left out",
        }
        for j, method in enumerate(rule.methods):
            matched = [choice for choice in choices.values() if _covers(rule, choice.group)]
            reason = reasons.get(named(method)[0])
            if reason and not any(method in choice.methods for choice in matched):
                fitting = [m for m in rule.methods if any(m in choice.methods for choice in matched)]
                raise DefinitionError(
                    f"{definition.where('groups', i, 'methods', j)}: '{method}' fits no group that the rule matches: {reason}. "
                    f"What fits: {', '.join(fitting) or 'nothing'}."
                )


def _multiple(group: Group, rule: GroupRule, step: int) -> int:
    """The rule's channel multiple for a group. step: the device's, halved until the group has a choice."""
    if rule.multiple_of != "device":
        return rule.multiple_of
    while step >= group.width and step > 1:
        step //= 2
    return step


def _check_names(definition: SearchSpaceDefinition, found: FoundGroups) -> None:
    for i, rule in enumerate(definition.groups):
        for j, method in enumerate(rule.methods):
            one_of(method, all_methods(), definition.where("groups", i, "methods", j), "method")
        names = [entry.name for part in (found.groups, found.fixed, found.blocks, found.excluded) for entry in part]
        if not any(fnmatchcase(name, rule.match) for name in names):
            raise _no_match(rule.match, names, definition.where("groups", i, "match"))
    layers = {member.module for group in found.groups for member in group.members}
    layers |= {entry.name for part in (found.excluded, found.blocks) for entry in part}
    for i, pattern in enumerate(definition.exclude):
        if not any(fnmatchcase(layer, pattern) for layer in layers):
            raise _no_match(pattern, layers, definition.where("exclude", i))


def _no_match(pattern: str, names: Iterable[str], where: str) -> DefinitionError:
    listed = sorted(names)
    stems = {name.rsplit(".", depth)[0] + ".*" for name in listed for depth in range(1, name.count(".") + 1)}
    hint = nearest(pattern, [*listed, *sorted(stems)])
    shown = ", ".join(listed[:12]) + (", …" if len(listed) > 12 else "")  # a line's worth
    return DefinitionError(f"{where}: '{pattern}' matches no group of this model.{hint} Groups: {shown}.")
