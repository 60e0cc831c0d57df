"""Do fronts differ by runtime? The same networks, in every runtime that is installed.

The networks are random and uniform ones of the search space, recalibrated, scored once on the search data. Printed for each
runtime: the dense network's time, the rank correlation (Kendall) of latencies with ONNX Runtime's, how many networks are on its
front of accuracy and latency, how many of them are on ONNX Runtime's as well, and what share of its front's hypervolume the front
chosen in ONNX Runtime has there. A second reading of ONNX Runtime says how much of a difference is noise.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.stats import kendalltau

from common import add_model, arguments, prepared_pipeline, table, write_json
from secateur.agent.runtimes import RUNTIMES, Available
from secateur.compression.resolution import resolve
from secateur.compression.saliency import Saliencies
from secateur.evaluators.formats import FORMATS
from secateur.records import Candidate, Plan
from secateur.search.front import hypervolume
from secateur.search_spaces import SearchSpace

BASE = "onnxruntime"


def on_front(costs: np.ndarray) -> set[int]:
    """costs: (n, 2), lower is better."""
    return {
        i for i, mine in enumerate(costs) if not any((other <= mine).all() and (other < mine).any() for other in costs)
    }


def usable() -> list[str]:
    """Runtimes that are installed here, ONNX Runtime first and last."""
    found = [
        name
        for name, runtime in RUNTIMES.items()
        if isinstance(runtime.probe(runtime.chosen({})), Available)
        and (runtime.format not in FORMATS or FORMATS[runtime.format].missing is None)
    ]
    return [BASE, *(name for name in found if name != BASE), BASE]


def different(space: SearchSpace, saliencies: Saliencies, count: int) -> Iterator[tuple[Candidate, Plan]]:
    """So many different networks, random and uniform in turn; the same ones for every runtime."""
    rng, seen = np.random.default_rng(0), set[str]()
    for attempt in itertools.count():
        candidate = space.uniform(float(rng.uniform(0, 0.8)), "l2") if attempt % 2 else space.random(rng)
        plan = resolve(candidate, space.groups, saliencies)
        if plan.key not in seen:
            seen.add(plan.key)
            yield candidate, plan
        if len(seen) == count:
            return


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    add_model(parser, keeps=False)
    parser.add_argument("--networks", type=int, help="how many (default 40, quick 16)")
    options = parser.parse_args()
    count = options.networks or (16 if options.quick else 40)
    latencies, milliseconds, accuracies = list[list[float]](), list[float](), list[float]()
    runtimes = usable()
    for runtime in runtimes:
        overrides = [*options.set, f"evaluator.runtime={runtime}"]
        prepared, saliencies = prepared_pipeline(quick=options.quick, model=options.model, overrides=overrides)
        space, evaluator = prepared.space, prepared.evaluator
        row = []
        for candidate, plan in different(space, saliencies, count):
            module = evaluator.compress(candidate, plan).module
            network = evaluator.files.rewritten(module, prepared.costs.after(plan))
            row.append(evaluator.measuring.latency(network).ratio)
            if len(accuracies) < count:
                accuracies.append(evaluator.measure(network, "search", ["accuracy"])["accuracy"].value)
        latencies.append(row)
        milliseconds.append(evaluator.measuring.latency(evaluator.files.dense).reference_ms.min)
        prepared.devices.close()
        print(f"{runtime}: {count} networks", flush=True)
    show(runtimes, latencies, milliseconds, accuracies)
    write_json(
        options.json, {"runtimes": runtimes, "latency": latencies, "dense_ms": milliseconds, "accuracy": accuracies}
    )


def show(
    runtimes: Sequence[str],
    latencies: Sequence[Sequence[float]],
    milliseconds: Sequence[float],
    accuracies: Sequence[float],
) -> None:
    """The table, a row a runtime."""
    rows = []
    chosen = on_front(np.stack([1 - np.array(accuracies), latencies[0]], 1))
    for number, runtime in enumerate(runtimes):
        costs = np.stack([1 - np.array(accuracies), latencies[number]], 1)
        own, reference = on_front(costs), np.array([1.0, 1.0])
        share = hypervolume(costs[sorted(chosen)], reference) / hypervolume(costs[sorted(own)], reference)
        order = float(kendalltau(latencies[0], latencies[number]).statistic)
        again = " again" if number == len(runtimes) - 1 else ""
        rows.append(
            [f"{runtime}{again}", f"{milliseconds[number]:.3f}", f"{order:.3f}", str(len(own)), str(len(own & chosen)),
             f"{share:.3f}"]
        )  # fmt: skip
    columns = ("", "dense, ms (min)", f"Kendall with {BASE}", "front", f"also on {BASE}'s", f"volume of {BASE}'s front")
    table(f"{len(accuracies)} networks", columns, rows)


if __name__ == "__main__":
    main()
