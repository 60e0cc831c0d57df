"""Hypervolume at equal evaluations and at equal CPU-seconds: secateur's search against what else one would write or install.

- secateur: what `secateur run` does with one worker and without racing: a candidate that would be given up early is scored to its
  end, as those of the other arms are, and pays for it.
- plain loop: a multi-objective Optuna study with its default sampler, on the same space with the same evaluation.
- uniform family: the same fraction everywhere, every method, as many fractions as the budget holds. It has no seed.
- torch-pruning, uniform and global: its own magnitude pruner at `--budgets` shares of the MACs, cut by itself, then recalibrated
  and measured as ours are; with the channels that run past the blocks, and inside the blocks only (`arms.torch_pruning_networks`
  says why). Also every network that it can make. Scanning for the ratios that hit the shares is not charged.

Each peer stands twice: as it comes (batch norms recalibrated), and "refitted" by our least squares as secateur's own networks are.

The volume lies between the front and the corner that `secateur run` uses: the dense network's own latency and size, and the
largest drop of accuracy that the search allows. Latency and size count as fractions of the dense network's. CPU-seconds are
those of the process, one thread, sampler and storage included.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

from arms import plain_loop, secateur, torch_pruning_front, uniform_family
from common import add_model, arguments, prepared_pipeline, spread, table, write_json
from judging import Judge, Step


@dataclass(frozen=True)
class Course:
    """How the volume of one arm grew. seconds, volumes: after each evaluation, from the start."""

    steps: Sequence[Step]
    seconds: Sequence[float]
    volumes: Sequence[float]

    @classmethod
    def of(cls, judge: Judge, steps: Sequence[Step]) -> Course:
        """Replays an arm."""
        evaluations = [step.evaluation for step in steps]
        volumes = [judge.volume(evaluations[: i + 1]) for i in range(len(steps))]
        return cls(steps, list(accumulate(step.seconds for step in steps)), volumes)

    def after(self, evaluations: int) -> float:
        """Volume after so many evaluations."""
        return self.volumes[min(evaluations, len(self.volumes)) - 1]

    def at(self, seconds: float) -> float:
        """Volume after so many CPU-seconds."""
        return max((v for v, s in zip(self.volumes, self.seconds, strict=True) if s <= seconds), default=0.0)

    def reaches(self, volume: float) -> int | None:
        """The number of the evaluation with which a volume is reached; None where it never is."""
        return next((i for i, v in enumerate(self.volumes) if v >= volume), None)


@dataclass(frozen=True)
class Race:
    """Secateur against one peer, seed by seed. shares: of what the peer spent, until its final volume is reached."""

    evaluations: list[float]
    seconds: list[float]
    evaluations_share: list[float]
    seconds_share: list[float]

    @classmethod
    def between(cls, ours: Sequence[Course], peers: Sequence[Course]) -> Race:
        """Pairs the seeds; a peer without seeds meets all of ours. A volume that is never reached counts as infinitely late."""
        race = cls([], [], [], [])
        for i, our in enumerate(ours):
            peer = peers[i % len(peers)]
            count, time = min(len(our.steps), len(peer.steps)), min(our.seconds[-1], peer.seconds[-1])
            race.evaluations.append(over(our.after(count), peer.after(count)))
            race.seconds.append(over(our.at(time), peer.at(time)))
            number = our.reaches(peer.volumes[-1])
            race.evaluations_share.append(float("inf") if number is None else (number + 1) / len(peer.steps))
            race.seconds_share.append(float("inf") if number is None else our.seconds[number] / peer.seconds[-1])
        return race


def over(ours: float, theirs: float) -> float:
    """A ratio of volumes; infinite where the other has none."""
    return ours / theirs if theirs > 0 else float("inf")


def report(judge: Judge, courses: dict[str, list[Course]], title: str) -> dict[str, object]:
    """Print two tables; return their figures."""
    ours = courses["secateur"]
    final = statistics.median(course.volumes[-1] for course in ours)
    rows, figures = [], dict[str, object]()
    for name, arm in courses.items():
        volumes, count = [course.volumes[-1] for course in arm], [len(course.steps) for course in arm]
        seconds = statistics.median(course.seconds[-1] for course in arm)
        ratio = over(final, statistics.median(volumes))
        rows.append([name, str(round(statistics.median(count))), f"{seconds:.0f}", *spread(volumes), f"{ratio:.2f}"])
        figures[name] = {"volumes": volumes, "evaluations": count, "cpu_s": [course.seconds[-1] for course in arm]}
    columns = ["", "networks", "CPU-seconds", "volume, median", "lowest", "highest", "secateur's over it"]
    table(f"hypervolume ({', '.join(judge.objectives)}), {title}", columns, rows)

    rows, races = [], dict[str, object]()
    for name, arm in courses.items():
        if name == "secateur":
            continue
        race = Race.between(ours, arm)
        parts = (race.evaluations, race.seconds, race.evaluations_share, race.seconds_share)
        rows.append([name, *(" ".join([m, f"({low} to {high})"]) for m, low, high in (spread(p, 2) for p in parts))])
        races[name] = vars(race)
    columns = ["", "volume, same evaluations", "volume, same CPU", "evaluations to its volume", "CPU to its volume"]
    table("secateur over each: volume ratios; share of what the other spent until its final volume", columns, rows)
    return {"arms": figures, "races": races}


def main() -> None:
    """Print the tables."""
    parser = arguments(__doc__)
    add_model(parser)
    parser.add_argument("--evaluations", type=int, help="networks that each search may evaluate (default 60, quick 30)")
    parser.add_argument("--seeds", type=int, help="searches per arm (default 5, quick 3)")
    parser.add_argument("--budgets", type=int, default=8, help="points of a torch-pruning front")
    options = parser.parse_args()
    budget = options.evaluations or (30 if options.quick else 60)
    seeds = range(options.seeds or (3 if options.quick else 5))
    prepared, saliencies = prepared_pipeline(quick=options.quick, model=options.model, overrides=options.set)
    judge = Judge(prepared, saliencies, options.keep)
    course: Callable[[Sequence[Step]], Course] = partial(Course.of, judge)
    plain = judge.without_refit()
    courses: dict[str, list[Course]] = {"secateur": [], "plain loop": [], "plain loop, refitted": []}
    searches = (
        ("secateur", secateur, judge),
        ("plain loop", plain_loop, plain),
        ("plain loop, refitted", plain_loop, judge),
    )
    for seed in seeds:
        for name, arm, by in searches:
            courses[name].append(course(arm(by, budget, seed)))
            print(f"{name}, seed {seed}: {courses[name][-1].volumes[-1]:.4f}", flush=True)
    courses["uniform family"] = [course(uniform_family(plain, budget))]
    courses["uniform family, refitted"] = [course(uniform_family(judge, budget))]
    for globally in (False, True):
        kind = f"torch-pruning {'global' if globally else 'uniform'}"
        for name, by, streams in (
            (kind, plain, True),
            (f"{kind}, blocks", plain, False),
            (f"{kind}, blocks, refitted", judge, False),
        ):
            few, every = torch_pruning_front(by, options.budgets, globally=globally, streams=streams)
            courses[name] = [course(few)]
            courses[f"{name}, all"] = [course(every)]
    title = f"{prepared.workload.name}, {len(seeds)} seeds"
    figures = report(judge, courses, title)
    eight = [judge.volume(judge.chosen([s.evaluation for s in c.steps], options.budgets)) for c in courses["secateur"]]
    print(f"secateur, {options.budgets} points of its front: {' '.join(spread(eight))} (median, lowest, highest)")
    write_json(options.json, {"evaluations": budget, f"volumes_of_{options.budgets}": eight, **figures})


if __name__ == "__main__":
    main()
