"""Trials per minute with one worker process and with two, in the search stage of `secateur run`.

Each repeat is a run of its own in an empty folder, ended after its search; numbers of workers alternate. The rate is that of
evaluated networks from the first told trial to the last, so that start-up does not count; start-up is listed beside it: until the
driver is ready (model traced, dense model exported and measured, while the workers prepare), and from there to the first told
trial. Racing is off, so that every network is scored on all images, whatever the front looks like by then.

Two evaluations side by side are slower than one, and their latencies are noisier: the last columns say by how much.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common import add_model, arguments, loaded_pipeline, spread, table, write_json
from secateur.definition import PipelineDefinition
from secateur.pipelines.listener import Listener
from secateur.pipelines.run import run_pipeline
from secateur.records import Evaluation, Trial
from secateur.search.ledger import Ledger, own

NO_RACING = "search.fidelities.first_images=0"


class SearchIsOver(Exception):
    """Ends a run where this benchmark has seen enough."""


class Clock(Listener):
    """When the stages began and when each trial was told."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.searching = self.started
        self.told: list[tuple[float, Trial]] = []

    def stage(self, name: str) -> None:
        """Notes the beginning of the search and ends the run after it."""
        if name == "search":
            self.searching = time.monotonic()
        if name == "recover":
            raise SearchIsOver

    def trial(self, ledger: Ledger, trial: Trial) -> None:  # noqa: ARG002 # as told
        """Notes a trial."""
        self.told.append((time.monotonic(), trial))


@dataclass(frozen=True)
class Repeat:
    """One search. rate: networks a minute; ready, first: seconds until the driver is ready, and on to the first told trial.

    evaluation: mean seconds of one. noise: median half width of the latency intervals, as a share of the value; None without them.
    """

    rate: float
    ready: float
    first: float
    evaluation: float
    noise: float | None


def repeat(definition: PipelineDefinition) -> Repeat:
    """Run the search stage once. Leaves where a candidate fails."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SearchIsOver):
        run_pipeline(definition, Path(folder), definition.name, listener=clock)
    failed = [trial.evaluation.failure for _, trial in clock.told if trial.evaluation.failure is not None]
    if failed:
        raise SystemExit(f"{len(failed)} of {len(clock.told)} candidates failed, the first one: {failed[0]}")
    evaluations = [trial.evaluation for trial in own([trial for _, trial in clock.told])]
    first, last = clock.told[0][0], clock.told[-1][0]
    return Repeat(
        60 * (len(evaluations) - 1) / (last - first),
        clock.searching - clock.started,
        first - clock.searching,
        statistics.fmean(e.seconds for e in evaluations),
        noise_of(evaluations),
    )


def noise_of(evaluations: Sequence[Evaluation]) -> float | None:
    """Median half width of the latency intervals, as a share of the value."""
    latencies = [e.measurements["latency"] for e in evaluations if "latency" in e.measurements]
    widths = [(m.bounds[1] - m.bounds[0]) / 2 / m.value for m in latencies]
    return statistics.median(widths) if widths else None


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    add_model(parser, keeps=False)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2], help="numbers of workers; the first is the base"
    )
    parser.add_argument("--trials", type=int, help="networks of each search (default 40, quick 20)")
    parser.add_argument("--repeats", type=int, help="searches for each number of workers (default 5, quick 2)")
    options = parser.parse_args()
    trials, repeats = options.trials or (20 if options.quick else 40), options.repeats or (2 if options.quick else 5)
    definitions = {
        workers: loaded_pipeline(
            quick=options.quick,
            model=options.model,
            overrides=[NO_RACING, f"search.trials={trials}", *options.set, f"search.workers={workers}"],
        ).definition
        for workers in options.workers
    }
    found: dict[int, list[Repeat]] = {workers: [] for workers in options.workers}
    for number in range(repeats):
        for workers in options.workers if number % 2 == 0 else options.workers[::-1]:
            found[workers].append(repeat(definitions[workers]))
            print(f"{workers} workers: {found[workers][-1].rate:.1f} networks a minute", flush=True)
    base = statistics.median(r.rate for r in found[options.workers[0]])
    rows = []
    for workers, each in found.items():
        rate, low, high = spread([r.rate for r in each], 1)
        noises = [r.noise for r in each if r.noise is not None]
        medians = (statistics.median(getattr(r, name) for r in each) for name in ("ready", "first", "evaluation"))
        rows.append(
            [
                str(workers),
                f"{rate} ({low} to {high})",
                f"{statistics.median(r.rate for r in each) / base:.2f}",
                *(f"{seconds:.2f}" for seconds in medians),
                f"± {statistics.median(noises):.1%}" if noises else "",
            ]
        )
    table(
        f"{definitions[options.workers[0]].name}, {trials} networks, {repeats} searches each, medians",
        ["workers", "networks a minute", "over the first", "ready, s", "first trial, s", "an evaluation, s", "latency"],
        rows,
    )
    write_json(options.json, {"trials": trials, "repeats": {w: [asdict(r) for r in each] for w, each in found.items()}})


if __name__ == "__main__":
    main()
