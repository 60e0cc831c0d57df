"""How well is latency foreseen for networks that were not measured, and at what price?

Three predictors of the same held-out networks, on this host as on any device (`device: local`):

- secateur: operators timed one by one, corrected with measured calibration networks;
- linear in MACs: a straight line through the same calibration networks and the dense one;
- table alone: the sum of the operators' times over the dense network's, no network measured.

The held-out networks are random (a level, and every group around it) or uniform, at 25 to 90 % of the MACs. They take no part in
any fit. Each is measured three times at different moments, its median counts, and how far apart the three are is printed as the
noise: no predictor can be better. Calibration networks are measured once, as in a search. Latency does not depend on weights:
the networks are untrained.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau
from torch import nn

from common import MODELS, arguments, table, write_json
from secateur.agent.latency import Protocol
from secateur.agent.runtimes import RUNTIMES
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.transforms.channels import without
from secateur.definition import EvaluatorDefinition, SearchSpaceDefinition
from secateur.evaluators.devices import open_devices
from secateur.evaluators.devices.pool import Devices
from secateur.evaluators.devices.work import Work
from secateur.evaluators.onnx_inputs import random_inputs
from secateur.evaluators.onnx_template import make_template
from secateur.evaluators.operator_table import measured_alone, table_of
from secateur.evaluators.operators import operators_of
from secateur.evaluators.prediction import Prediction, calibration_candidates, fit
from secateur.records import Candidate
from secateur.search_spaces import build_space
from secateur.workloads.digits import residual_network as digits_network
from secateur.workloads.resnet import cifar_resnet

Array = NDArray[np.float64]

SPACE = {"groups": [{"methods": ["l2"], "multiple_of": 8, "at_least": 8, "removed": [0.0, 0.8]}]}
"""search_spaces/cnn_channels.yaml with one method: which channels go does not matter here."""
COVERED = 100
"""Random networks whose operators the table has to know; they are not measured."""
MEASUREMENTS = 3
"""Of each held-out network."""
LEAST_MACS, MOST_MACS = 0.25, 0.9


class Family:
    """Networks cut from one, as files, with their share of its MACs."""

    def __init__(self, model: nn.Module, image: torch.Tensor) -> None:
        self._model, found = model.eval(), find_groups(model.eval(), (image,))
        self.costs = found.costs
        self.space = build_space(SearchSpaceDefinition.model_validate(SPACE), found)
        self._template = make_template(model, (image,))
        self.dense: bytes = self._template.dense

    def cut(self, candidate: Candidate) -> tuple[bytes, float]:
        """The file, and the share of the MACs."""
        gone = {g.name: g.removable[: g.width - candidate.width(g.name, g.width)] for g in self.space.groups}
        plan = without(self.space.groups, gone)
        return self._template.render(apply(self._model, plan)), self.costs.after(plan) / self.costs.total

    def held_out(self, count: int, rng: np.random.Generator, taken: Sequence[Candidate]) -> list[Candidate]:
        """So many different networks within the range of MACs, none of them taken: uniform, even and around a level, in turn."""
        drawn: list[Candidate] = []
        for attempt in itertools.count():
            if len(drawn) == count:
                break
            if attempt % 4 == 0:
                candidate = self.space.uniform(float(rng.uniform(0, 0.8)), "l2")
            elif attempt % 4 == 1:
                candidate = self.space.random(rng)
            else:
                low, high = np.sort(rng.uniform(0, 0.8, 2))
                values: dict[str, float | str] = {
                    p.name: float(np.clip(rng.uniform(low, high), p.low, p.high)) for p in self.space.parameters()
                }
                candidate = self.space.candidate(values)
            if candidate not in drawn and candidate not in taken and LEAST_MACS <= self.cut(candidate)[1] <= MOST_MACS:
                drawn.append(candidate)
        return drawn


@dataclass(frozen=True)
class Score:
    """A predictor on the held-out networks. error, worst: relative. within: share of errors up to 10 %.

    covered: share of the intervals that hold what was measured. half_width: of them, relative. None for a predictor without any.
    """

    error: float
    worst: float
    within: float
    kendall: float
    covered: float | None
    half_width: float | None


def score(predicted: Sequence[Prediction] | Array, real: Array) -> Score:
    """Against what was measured."""
    if isinstance(predicted, np.ndarray):
        ratios, covered, width = predicted, None, None
    else:
        ratios = np.array([p.ratio for p in predicted])
        lows, highs = np.array([p.interval for p in predicted]).T
        covered = float(((lows <= real) & (real <= highs)).mean())
        width = float(np.median((highs - lows) / ratios) / 2)
    errors = np.abs(ratios / real - 1)
    order = float(kendalltau(ratios, real).statistic)
    return Score(float(errors.mean()), float(errors.max()), float((errors <= 0.1).mean()), order, covered, width)


def measure(devices: Devices, file: bytes, dense: bytes) -> float:
    """Its latency as a share of the dense network's."""
    report = devices.measure(Work(file, dense, random_inputs(dense, 1, 4), Protocol())).report
    assert report is not None  # noqa: S101 # latency is asked for by default
    return report.ratio


def judged(family: Family, devices: Devices, models: int, held_out: int, seed: int) -> dict[str, object]:
    """All figures of one family of networks."""
    rng = np.random.default_rng(seed)
    chosen = calibration_candidates(family.space, models, seed)
    calibration = [family.cut(candidate) for candidate in chosen]
    unseen = [family.cut(candidate) for candidate in family.held_out(held_out, rng, chosen)]
    covered = [family.cut(family.space.random(rng))[0] for _ in range(COVERED)]

    started = time.perf_counter()
    ratios = [measure(devices, file, family.dense) for file, _ in calibration]
    measured_at = time.perf_counter()
    operators = [o for file in (family.dense, *(f for f, _ in calibration), *covered) for o in operators_of(file, 1)]
    found = table_of(operators, measured_alone(devices, 1))
    tabled_at = time.perf_counter()
    predictor = fit(family.dense, [(f, r) for (f, _), r in zip(calibration, ratios, strict=True)], found, 1)
    fitted_at = time.perf_counter()
    foreseen = [predictor.predict(file) for file, _ in unseen]
    foreseen_at = time.perf_counter()

    rounds = [[measure(devices, file, family.dense) for file, _ in unseen] for _ in range(MEASUREMENTS)]
    measurements = np.array(rounds)
    real = np.median(measurements, axis=0)
    noise = float((np.abs(measurements / real - 1)).max(axis=0).mean())

    line = np.polyfit([1.0, *(share for _, share in calibration)], [1.0, *ratios], 1)
    by_macs = np.polyval(line, [share for _, share in unseen])
    sums = np.array([sum(found.time(o) for o in operators_of(file, 1)) for file, _ in (*unseen, (family.dense, 1.0))])
    return {
        "secateur": asdict(score(foreseen, real)),
        "linear in MACs": asdict(score(by_macs, real)),
        "table alone": asdict(score(sums[:-1] / sums[-1], real)),
        "one measurement": asdict(score(measurements[0], np.median(measurements[1:], axis=0))),
        "noise": noise,
        "calibration": asdict(predictor.quality),
        "operators": len({o.key for o in operators}),
        "timed": len(found.seconds),
        "seconds": {
            "calibration networks": measured_at - started,
            "table": tabled_at - measured_at,
            "fit": fitted_at - tabled_at,
            "one prediction": (foreseen_at - fitted_at) / len(unseen),
            "one measurement": (time.perf_counter() - foreseen_at) / measurements.size,
        },
        "held out": {"measured": real.tolist(), "foreseen": [p.ratio for p in foreseen]},
    }


def show(name: str, figures: dict[str, dict[str, float | None]], models: int, held_out: int) -> None:
    """One table."""

    def percent(value: float | None, digits: int = 1) -> str:
        return "" if value is None else f"{value:.{digits}%}"

    rows = []
    for method in ("secateur", "linear in MACs", "table alone", "one measurement"):
        f = figures[method]
        rows.append(
            [method, percent(f["error"]), percent(f["worst"]), percent(f["within"], 0), f"{f['kendall']:.3f}",
             percent(f["covered"], 0), percent(f["half_width"])]
        )  # fmt: skip
    columns = ("", "mean error", "largest", "within 10 %", "Kendall", "in its interval", "half width")
    table(f"{name}: {held_out} held-out networks, {models} calibration networks", columns, rows)


def main() -> None:
    """Print a table for each family."""
    parser = arguments(__doc__)
    parser.add_argument("--model", choices=sorted(MODELS), action="append", help="default: both; --quick ignores it")
    parser.add_argument(
        "--runtime", choices=sorted(n for n, r in RUNTIMES.items() if r.format == "onnx"), default="onnxruntime"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the networks")
    parser.add_argument("--models", type=int, default=12, help="calibration networks that are measured")
    options = parser.parse_args()
    held_out = 12 if options.quick else 32
    torch.manual_seed(0)
    torch.set_num_threads(1)
    families: dict[str, tuple[nn.Module, torch.Tensor]] = (
        {"digits": (digits_network(), torch.randn(1, 1, 8, 8))}
        if options.quick
        else {n: (cifar_resnet(MODELS[n][0]), torch.randn(1, 3, 32, 32)) for n in options.model or sorted(MODELS)}
    )
    definition = EvaluatorDefinition(objectives={"latency": "minimize"}, runtime=options.runtime)
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        devices = open_devices(definition, Path(folder))
        for name, (model, image) in families.items():
            found = judged(Family(model, image), devices, options.models, held_out, options.seed)
            figures[name] = found
            show(f"{name}, {options.runtime}", found, options.models, held_out)  # type: ignore[arg-type] # the parts that it reads
            seconds = found["seconds"]
            print(
                f"{found['operators']} different operators, {found['timed']} of them timed; three measurements of a network are "
                f"{found['noise']:.1%} apart; seconds: "
                + ", ".join(f"{key} {value:.3g}" for key, value in seconds.items())  # type: ignore[attr-defined] # a dict
                + "\n"
            )
        devices.close()
    write_json(options.json, {"seed": options.seed, "models": options.models, "runtime": options.runtime, **figures})


if __name__ == "__main__":
    main()
