"""An invented network of three groups whose figures are formulas: a search on it takes microseconds."""

from __future__ import annotations

from secateur.compression.groups import FoundGroups
from secateur.definition import SearchSpaceDefinition
from secateur.records import CHANNELS, Candidate, Edit, Evaluation, Group, Measurement, Member, Plan, Remove
from secateur.search_spaces import UNTOUCHED, Option, build_space, rungs

OBJECTIVES = {"accuracy": "maximize", "macs": "minimize"}
HARM = {"a": 0.02, "b": 0.5, "c": 0.1}


def make_space(methods=("l1", "l2")):
    members = (Member("x", "out", "batch norm", (), ()),)
    groups = tuple(Group(name, "Conv2d", members, 32, tuple(range(32)), 100, 100) for name in HARM)
    declared = SearchSpaceDefinition.model_validate(
        {"groups": [{"methods": list(methods), "multiple_of": 4, "removed": [0.0, 0.9]}]}
    )
    return build_space(declared, FoundGroups(groups, (), None))


def ladder(group: Group, widths) -> tuple[Option, ...]:
    """Options that leave so many channels."""
    cut = rungs(group, CHANNELS, [width for width in widths if width < group.width])
    return cut if len(cut) == len(widths) else (UNTOUCHED, *cut)


def whole(width, name="g") -> Group:
    return Group(name, "Conv2d", (), width, tuple(range(width)), 100, 100)


def narrowed(levels, by="l2") -> Candidate:
    """Channels that stay of each group, all others removed by one criterion."""
    return Candidate({name: (Edit(CHANNELS, level, by),) for name, level in levels.items()})


def resolve(candidate: Candidate) -> Plan:
    """The channels that leave each group; no two criteria agree on them."""
    edits = {name: edit for name, (edit,) in candidate.edits.items()}
    return Plan(tuple(Remove(f"{n} {e.by}", "out", tuple(range(e.level, 32))) for n, e in edits.items()))


def exact(plan: Plan) -> dict[str, float]:
    share = 1 - sum(len(step.indices) / 32 for step in plan.steps) / len(HARM)
    return {"macs": share, "parameters": 1000 * share, "nonzero": 1000 * share}


def damage_of(candidate: Candidate) -> float:
    harm = 0.0
    for name, (edit,) in candidate.edits.items():
        harm += HARM[name] * (1 - edit.level / 32) ** 2 * (0.8 if edit.by == "l2" else 1.0)
    return harm


def evaluate(candidate: Candidate) -> Evaluation:
    damage, macs = damage_of(candidate), exact(resolve(candidate))["macs"]
    figures = {"accuracy": 0.9 - damage, "macs": macs, "damage": damage, "size": 4 * macs, "parameters": 1000 * macs}
    return Evaluation(
        candidate, resolve(candidate).key, {name: Measurement(v, "", "computed") for name, v in figures.items()}
    )


def worker(job, evaluate=evaluate):
    """What a worker does with a job: a probe is no evaluation."""
    if not job.fidelity.probe:
        return evaluate(job.candidate)
    figures = {"damage": damage_of(job.candidate), **exact(job.plan)}
    return Evaluation(job.candidate, "", {n: Measurement(v, "", "computed") for n, v in figures.items()})
