"""What every sampler promises."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from secateur.records import CHANNELS, Candidate, Direction, Evaluation, Group, Measurement
from secateur.search.study import Proposal, Study, Subject
from secateur.search_spaces import UNTOUCHED, Choice, SearchSpace, rungs

A, B = (Group(name, "Conv2d", (), 64, tuple(range(64)), 0, 0) for name in "ab")
SPACE = SearchSpace(
    {
        "a": Choice(A, ("l1", "l2"), (UNTOUCHED, *rungs(A, CHANNELS, range(63, 15, -1)))),
        "b": Choice(B, ("l1",), rungs(B, CHANNELS, range(56, 31, -1))),
    },
    excluded=(),
)
OBJECTIVES: Mapping[str, Direction] = {"accuracy": "maximize", "size": "minimize"}
Values = Mapping[str, float | str]


def judged(values: Values) -> Evaluation:
    """A formula in the place of an evaluation."""
    a, b = float(values["a.removed"]), float(values["b.removed"])
    figures = {"accuracy": 1 - a**2 - b * (0.5 if values["a.method"] == "l1" else 0.3), "size": 2 - a - b}
    return Evaluation(Candidate({}), "", {n: Measurement(v, "", "computed") for n, v in figures.items()})


def drive(
    study: Study,
    count: int,
    failing: Collection[int] = (),
    infeasible: Collection[int] = (),
    rejected: Collection[int] = (),
) -> list[Values]:
    """So many trials, some of which fail, break a constraint, or are rejected unseen. Returns what was asked."""
    pending: list[Values] = []
    for i in range(count):
        trial = study.ask()
        pending.append(dict(trial.values))
        evaluation = judged(trial.values)
        if i in failing:
            evaluation = Evaluation(evaluation.candidate, "", {}, "broke")
        if i in rejected:
            evaluation = Evaluation(evaluation.candidate, "", {}, stopped="too large")
        study.tell(trial, evaluation, {"accuracy": 1.0 if i in infeasible or i in rejected else -1.0})
    return pending


class SamplerContract:
    """Subclass it, and set `name` (or override it as a fixture) to the sampler's name in the registry."""

    name: str

    @pytest.fixture
    def sampler(self) -> str:
        """The name."""
        return self.name

    def open_study(self, folder: Path, sampler: str, seed: int = 3, name: str = "s") -> Study:
        """A study in a folder: a new one, or the one that is there."""
        return Study(folder / f"{name}.db", name, Subject(SPACE, OBJECTIVES, {}), sampler, seed)

    def test_values_lie_within_their_parameters(self, sampler: str, tmp_path: Path) -> None:
        for values in drive(self.open_study(tmp_path, sampler), 14):
            assert 0.0 <= float(values["a.removed"]) <= 0.75
            assert 0.125 <= float(values["b.removed"]) <= 0.5
            assert values["a.method"] in ("l1", "l2")

    def test_the_same_seed_asks_the_same(self, sampler: str, tmp_path: Path) -> None:
        runs = [drive(self.open_study(tmp_path, sampler, name=f"s{i}"), 13) for i in range(2)]
        assert runs[0] == runs[1]

    def test_another_seed_asks_otherwise(self, sampler: str, tmp_path: Path) -> None:
        assert drive(self.open_study(tmp_path, sampler, name="x", seed=1), 5) != drive(
            self.open_study(tmp_path, sampler, name="y", seed=2), 5
        )

    def test_a_reopened_study_goes_on_and_does_not_repeat_its_first_asks(self, sampler: str, tmp_path: Path) -> None:
        first = drive(self.open_study(tmp_path, sampler), 12)
        again = self.open_study(tmp_path, sampler)
        assert len(again.trials()) == 12
        second = drive(again, 8)  # later a genetic sampler may cross two parents into one of them
        assert not [values for values in second if values in first]

    def test_failed_infeasible_and_rejected_trials_do_not_stop_it(self, sampler: str, tmp_path: Path) -> None:
        study = self.open_study(tmp_path, sampler)
        drive(study, 28, failing=range(0, 28, 4), infeasible=range(1, 28, 4), rejected=range(2, 28, 4))
        trials = study.trials()
        assert sum(t.evaluation.failure is not None for t in trials) == 7
        assert sum(t.evaluation.stopped is not None for t in trials) == 7
        drive(study, 5)
        drive(self.open_study(tmp_path, sampler), 5)

    def test_a_study_that_has_seen_only_failures_goes_on(self, sampler: str, tmp_path: Path) -> None:
        study = self.open_study(tmp_path, sampler)
        drive(study, 14, failing=range(14))
        drive(study, 3)

    def test_several_trials_may_be_under_way_and_end_in_any_order(self, sampler: str, tmp_path: Path) -> None:
        study = self.open_study(tmp_path, sampler)
        drive(study, 12)
        pending = [study.ask() for _ in range(4)]
        assert len({tuple(a.values.items()) for a in pending}) == 4
        recorded = [study.tell(a, judged(a.values), {"accuracy": -1.0}) for a in reversed(pending)]
        assert [t.number for t in recorded] == [12, 13, 14, 15]
        stored = self.open_study(tmp_path, sampler).trials()
        assert [t.evaluation for t in stored[12:]] == [t.evaluation for t in recorded]

    def test_a_planned_candidate_is_asked_as_it_is(self, sampler: str, tmp_path: Path) -> None:
        study = self.open_study(tmp_path, sampler)
        planned = Proposal(SPACE.uniform(0.5, "l2"), "uniform", "mine")
        pending = study.ask(planned)
        assert pending.proposal is planned
        assert pending.values == SPACE.values(planned.candidate)
        study.tell(pending, judged(pending.values), {})
        (stored,) = self.open_study(tmp_path, sampler).trials()
        assert (stored.arm, stored.label, stored.evaluation) == ("uniform", "mine", judged(pending.values))

    def test_what_the_sampler_chooses_is_a_candidate_of_the_space(self, sampler: str, tmp_path: Path) -> None:
        study = self.open_study(tmp_path, sampler)
        pending = study.ask()
        assert pending.proposal == Proposal(SPACE.candidate(pending.values))

    def test_what_was_under_way_leaves_no_trace(self, sampler: str, tmp_path: Path) -> None:
        study = self.open_study(tmp_path, sampler)
        drive(study, 3)
        study.ask()
        assert len(self.open_study(tmp_path, sampler).trials()) == 3
