"""How well the search score of a candidate predicts its accuracy after fine-tuning: Kendall's tau, side by side.

Candidates are uniform cuts, random ones, and networks that a search has evaluated, the best of its kind near each target; one set
is spread over the MACs, the other lies within 15 points of them, where MACs alone say little. Each is cut, scored on search data
with and without recalibration, and after a few training steps, as on the rungs that choose finalists. Then it is fine-tuned
briefly with distillation, on other samples, and scored on selection data. Brief means `--steps` steps of 128 images, the same for
all: a ranking of what comes back soon, not of what comes back in the end.

A candidate takes about a minute on ResNet-20: with `--keep FILE` a stopped run goes on, and `--candidates N` stops by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import TypeAdapter
from scipy.stats import kendalltau

from arms import secateur
from common import add_model, arguments, prepared_pipeline, table, write_json
from judging import Judge
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.definition import RecoverDefinition
from secateur.records import Candidate, Plan
from secateur.recovery.fine_tune import train_steps
from tuning import score_on, tune_briefly

_CANDIDATE: TypeAdapter[Candidate] = TypeAdapter(Candidate)

SPREAD = (0.26, 0.84)
"""Shares of the dense network's MACs over which the first set is spread."""
NEAR = (0.55, 0.70)
"""Those between which the second set lies."""
SCORES = {
    "recalibrated": "accuracy, recalibrated by difference (the search score)",
    "damage": "damage, recalibrated by difference",
    "plain": "accuracy, without recalibration",
    "macs": "MACs alone",
}


@dataclass(frozen=True)
class Entry:
    """A network that may be taken up. share: of the dense network's MACs."""

    kind: str
    candidate: Candidate
    plan: Plan
    share: float


def pool(judge: Judge, evaluations: int, draws: int = 600) -> list[Entry]:
    """Uniform cuts by every method, seeded random ones, and what a search of so many evaluations has seen."""
    space = judge.prepared.space

    def candidates() -> Iterator[tuple[str, Candidate]]:
        for method in space.methods:
            for fraction in np.arange(0.0625, 0.8, 0.0625):
                yield "uniform", space.uniform(float(fraction), method)
        rng = np.random.default_rng(0)
        for _ in range(draws):
            strength = rng.uniform()  # without it, independent draws would all remove about the same
            edits = {}
            for name, choice in space.choices.items():
                removed, method = strength * rng.uniform(*choice.removed), str(rng.choice(choice.methods))
                edits[name] = choice.nearest(removed, method).edits(method)
            yield "random", Candidate.of(edits)
        for step in secateur(judge, evaluations, seed=0):
            yield "searched", step.evaluation.candidate

    return list({entry.plan.key: entry for entry in (entry_of(judge, *pair) for pair in candidates())}.values())


def entry_of(judge: Judge, kind: str, candidate: Candidate) -> Entry:
    """A candidate with what leaves and what stays of the MACs."""
    prepared = judge.prepared
    plan = resolve(candidate, prepared.space.groups, judge.saliencies)
    return Entry(kind, candidate, plan, prepared.costs.after(plan) / prepared.costs.total)


def sets(judge: Judge, count: int, evaluations: int) -> tuple[list[Entry], list[Entry]]:
    """The set that is spread over the MACs and the one of nearly equal MACs. A resumed run takes up the same candidates."""

    def chosen() -> list[list[tuple[str, object]]]:
        entries = pool(judge, evaluations)
        spread_out = pick(entries, SPREAD, count, [])
        return [
            [(e.kind, _CANDIDATE.dump_python(e.candidate, mode="json")) for e in picked]
            for picked in (spread_out, pick(entries, NEAR, count, spread_out))
        ]

    spread_out, near = (
        [entry_of(judge, kind, _CANDIDATE.validate_python(candidate)) for kind, candidate in picked]
        for picked in judge.kept.get(f"sets of {count}", chosen)
    )
    return spread_out, near


def pick(entries: Sequence[Entry], bounds: tuple[float, float], count: int, taken: Sequence[Entry]) -> list[Entry]:
    """`count` entries, kinds in turn, each the one nearest to the next of evenly spaced shares. taken: those already picked."""
    low, high = bounds
    picked = [entry for entry in taken if low <= entry.share <= high]
    free = [entry for entry in entries if low <= entry.share <= high and entry not in picked]
    kinds = sorted({entry.kind for entry in free})
    targets = np.linspace(low, high, max(1, -(-count // len(kinds))))
    for target in targets:
        for kind in kinds:
            mine = [entry for entry in free if entry.kind == kind]
            if mine and len(picked) < count:
                best = min(mine, key=lambda entry: abs(entry.share - target))
                free.remove(best)
                picked.append(best)
    return picked


def scores(judge: Judge, entry: Entry, steps: int, rungs: Sequence[int]) -> dict[str, float]:
    """Every predictor, more is better, and the accuracy after fine-tuning. rungs: training steps before another look."""
    prepared = judge.prepared

    def measure() -> dict[str, float]:
        module = prepared.evaluator.compress(entry.candidate, entry.plan).module
        tuned = tune_briefly(prepared, module, steps)
        settings = prepared.definition.recover or RecoverDefinition()
        looked = {n: train_steps(module, prepared.model, prepared.workload, settings, n).module for n in rungs}
        return {
            "plain": score_on(prepared, apply(prepared.model, entry.plan), "search"),
            "tuned": score_on(prepared, tuned, "selection"),
            **{f"after {n}": score_on(prepared, network, "search") for n, network in looked.items()},
        }

    measured = judge.evaluate(entry.candidate).evaluation.measurements
    return {
        **judge.kept.get(f"tuned {steps} {entry.plan.key}", measure),
        "recalibrated": measured["accuracy"].value,
        "damage": -measured["damage"].value,
        "macs": entry.share,
    }


def tuned_of(judge: Judge) -> int:
    """How many candidates have been fine-tuned."""
    return sum(key.startswith("tuned") for key in judge.kept.results)


def taus(found: Sequence[Mapping[str, float]], resamples: int = 1000) -> dict[str, list[float]]:
    """Kendall's tau-b of each score with the tuned accuracy, and its bootstrap 95 % interval over the candidates."""
    tuned = np.array([scores["tuned"] for scores in found])
    drawn = np.random.default_rng(0).integers(0, len(found), (resamples, len(found)))
    result = {}
    for name in [name for name in found[0] if name != "tuned"]:
        values = np.array([scores[name] for scores in found])
        again = [kendalltau(values[i], tuned[i]).statistic for i in drawn]
        result[name] = [float(kendalltau(values, tuned).statistic), *np.nanpercentile(again, [2.5, 97.5]).tolist()]
    return result


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    add_model(parser)
    parser.add_argument("--steps", type=int, help="of fine-tuning (default 100, quick 10)")
    parser.add_argument("--count", type=int, help="candidates in each set (default 24, quick 10)")
    parser.add_argument("--candidates", type=int, help="fine-tune no more than so many now, and stop")
    parser.add_argument(
        "--rungs", type=int, nargs="*", help="training steps before another look (default 10 30, quick 2 7)"
    )
    options = parser.parse_args()
    steps, count = options.steps or (10 if options.quick else 100), options.count or (10 if options.quick else 24)
    rungs = options.rungs or ([2, 7] if options.quick else [10, 30])
    prepared, saliencies = prepared_pipeline(quick=options.quick, model=options.model, overrides=options.set)
    judge = Judge(prepared, saliencies, options.keep)
    spread_out, near = sets(judge, count, 30 if options.quick else 60)
    known = tuned_of(judge)
    found: dict[str, dict[str, float]] = {}
    for entry in [*near, *spread_out]:
        if options.candidates is not None and tuned_of(judge) - known >= options.candidates:
            raise SystemExit(f"{len(found)} candidates are done; run the same command again to go on.")
        if entry.plan.key not in found:
            found[entry.plan.key] = scores(judge, entry, steps, rungs)
            print(f"{entry.kind}: {found[entry.plan.key]}", flush=True)
    figures: dict[str, object] = {"steps": steps, "candidates": list(found.values())}
    for name, chosen in (("spread", spread_out), ("near", near)):
        result = taus([found[entry.plan.key] for entry in chosen])
        shares = [entry.share for entry in chosen]
        table(
            f"Kendall with accuracy after {steps} steps: {len(chosen)} candidates, {min(shares):.0%} to {max(shares):.0%} of MACs",
            ["", "tau", "from", "to (95 %)"],
            [
                [SCORES.get(score, f"accuracy {score} training steps"), *(f"{value:.2f}" for value in values)]
                for score, values in result.items()
            ],
        )
        figures[name] = {"kendall": result, "count": len(chosen)}
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
