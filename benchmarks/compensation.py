"""What repairs a cut network without training, and at what price: accuracy on search data after each of the ways.

The same uniform and random cuts, by each of the `--methods`: if nothing else is said, a criterion of weights alone (next_layer)
and one that knows of refitting (obs); or masks such as `weights/magnitude`. Then a few steps of fine-tuning (`--steps`, 0 for none)
from three of these networks. Seconds are over a bare ONNX Runtime pass of the dense network over the images that a candidate is
scored on.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from torch import nn

from candidate_cost import bare, seconds
from common import add_model, arguments, prepared_pipeline, table, write_json
from secateur.compression.costs import nonzero_after, parameter_count
from secateur.compression.resolution import resolve
from secateur.evaluators.cutting import Cutting
from secateur.records import Candidate
from secateur.search_spaces import SearchSpace
from secateur.workloads.roles import collect
from tuning import score_on, tune_briefly

TUNED = ("BN", "LS + BN", "refined")
"""Ways from which fine-tuning starts: that of the search is `LS + BN`, that of a run without training `refined`."""


def candidates(space: SearchSpace, method: str, fractions: Sequence[float], draws: int) -> dict[str, Candidate]:
    """Uniform ones, and so many of random widths by the same method."""
    found = {f"uniform {fraction:g}": space.uniform(fraction, method) for fraction in fractions}
    for draw in range(draws):
        rng = np.random.default_rng(draw)
        edits = {name: c.nearest(rng.uniform(*c.removed), method).edits(method) for name, c in space.choices.items()}
        found[f"random {draw}"] = Candidate.of(edits)
    return found


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    add_model(parser, keeps=False)
    parser.add_argument(
        "--steps",
        type=int,
        default=0,
        help="of fine-tuning, from the recalibrated, the refitted and the refined network",
    )
    parser.add_argument(
        "--fractions", type=float, nargs="*", default=(0.125, 0.25, 0.375, 0.5, 0.75), help="uniform cuts"
    )
    parser.add_argument("--draws", type=int, default=3, help="candidates of random widths")
    parser.add_argument("--methods", nargs="*", default=("next_layer", "obs"), help="as a search space lists them")
    options = parser.parse_args()
    rules = f"search_space={{groups: [{{methods: [{', '.join(options.methods)}], removed: [0.0, 0.8], zeros: [0.0, 0.99]}}]}}"
    prepared, saliencies = prepared_pipeline(quick=options.quick, model=options.model, overrides=[rules, *options.set])
    evaluator, space = prepared.evaluator, prepared.space
    images, refit_images = evaluator.definition.calibration_images, evaluator.definition.refit_images
    plain, repaired = Cutting(prepared.model, prepared.workload), evaluator.cutting
    inputs, _ = collect(prepared.workload.data.search)
    batches = [tuple(x[i : i + 1].numpy() for x in inputs) for i in range(len(inputs[0]))]
    one_pass = statistics.median(seconds(lambda: bare(evaluator.files.dense.onnx, batches)) for _ in range(3))
    rows, figures, prices = [], [], dict[str, list[float]]()
    for method in options.methods:
        for label, candidate in candidates(space, method, options.fractions, options.draws).items():
            plan = resolve(candidate, space.groups, saliencies)
            arms: dict[str, Callable[[], nn.Module]] = {
                "nothing": lambda: plain.cut(plan, 0),  # noqa: B023 # called at once
                "BN": lambda: plain.cut(plan, images),  # noqa: B023
                "LS": lambda: repaired.cut(plan, 0),  # noqa: B023
                "LS + BN": lambda: repaired.cut(plan, images),  # noqa: B023
                "refined": lambda: repaired.refined(plan, images, refit_images),  # noqa: B023
            }
            found = {}
            for arm, make in arms.items():
                started = time.process_time()
                module = make()
                prices.setdefault(arm, []).append(time.process_time() - started)
                found[arm] = score_on(prepared, module, "search")
                if options.steps and arm in TUNED:
                    found[f"{arm}, tuned"] = score_on(prepared, tune_briefly(prepared, module, options.steps), "search")
            share = prepared.costs.after(plan) / prepared.costs.total
            nonzero = nonzero_after(prepared.model, plan) / parameter_count(prepared.model)
            figures.append({"method": method, "cut": label, "macs": share, "nonzero": nonzero, **found})
            rows.append(
                [f"{label}, {method}", f"{share:.2f}", f"{nonzero:.2f}", *(f"{score:.3f}" for score in found.values())]
            )
    table(f"score of {prepared.workload.name} after each way", ["cut", "MACs", "not zero", *list(figures[0])[4:]], rows)
    dearer = {
        arm: (statistics.median(spent) - statistics.median(prices["nothing"])) / one_pass
        for arm, spent in prices.items()
    }
    table(
        f"CPU-seconds over one bare pass ({one_pass:.2f} s, {len(batches)} images), beyond the cut itself; median",
        list(dearer),
        [[f"{price:.2f}" for price in dearer.values()]],
    )
    write_json(options.json, {"figures": figures, "pass_s": one_pass, "price": dearer, "steps": options.steps})


if __name__ == "__main__":
    main()
