"""How much of the promised speed-up arrives on the device?

A network with half of the MACs promises a speed-up of two. Printed for each way to choose networks: measured speed-up over the MACs
speed-up, median and range over eight points of its front (accuracy, latency):

- secateur, device: our search, widths in the steps that the device was measured to like (`multiple_of: device`);
- secateur, 1: the same search, any width;
- torch-pruning: its magnitude pruner without rounding, uniform and global, at eight budgets of MACs.

`--set evaluator.runtime=openvino` measures another runtime.
"""

from __future__ import annotations

from collections.abc import Sequence

from arms import secateur, torch_pruning_front
from common import add_model, arguments, prepared_pipeline, spread, table, write_json
from judging import Judge, Step
from secateur.records import Evaluation
from secateur.search.front import front

POINTS = 8


def efficiencies(judge: Judge, members: Sequence[Evaluation]) -> list[float]:
    """Measured speed-up over MACs speed-up of each."""
    dense = judge.dense["macs"].value
    return [e.measurements["macs"].value / dense / e.measurements["latency"].value for e in members]


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    add_model(parser, keeps=False)
    parser.add_argument("--evaluations", type=int, help="networks that each search may evaluate (default 60, quick 30)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    budget = options.evaluations or (30 if options.quick else 60)
    rows, figures = [], {}

    def add(name: str, judge: Judge, steps: Sequence[Step]) -> None:
        sound = [s.evaluation for s in steps if s.evaluation.complete]
        # Neither the dense model itself nor what is slower than it: that one dominates those.
        smaller = [e for e in sound if e.measurements["macs"].value < judge.dense["macs"].value]
        best = [
            e for e in judge.chosen(front(smaller, judge.objectives), POINTS) if e.measurements["latency"].value < 1
        ]
        found = efficiencies(judge, best)
        shares = [e.measurements["macs"].value / judge.dense["macs"].value for e in best]
        rows.append([name, str(len(best)), f"{min(shares):.0%}-{max(shares):.0%}", *spread(found, 2)])
        figures[name] = {"efficiency": found, "macs": shares}

    for steps in ("device", "1"):
        overrides = [*options.set, f"search_space.groups.0.multiple_of={steps}", "search_space.groups.0.at_least=1",
                     "evaluator.objectives={accuracy: maximize, latency: minimize}"]  # fmt: skip
        prepared, saliencies = prepared_pipeline(quick=options.quick, model=options.model, overrides=overrides)
        judge = Judge(prepared, saliencies)
        add(f"secateur, multiple_of: {steps}", judge, secateur(judge, budget, options.seed))
    for streams in (True, False):
        for globally in (False, True):
            few, _ = torch_pruning_front(judge, POINTS, globally=globally, streams=streams, round_to=None)
            name = f"torch-pruning {'global' if globally else 'uniform'}{'' if streams else ', blocks'}"
            add(name, judge, few)
    runtime = prepared.definition.evaluator.runtime
    columns = ("", "networks", "of the MACs", "median", "lowest", "highest")
    table(f"measured speed-up over MACs speed-up, {prepared.workload.name}, {runtime}", columns, rows)
    write_json(options.json, {"runtime": runtime, "seed": options.seed, "evaluations": budget, **figures})


if __name__ == "__main__":
    main()
