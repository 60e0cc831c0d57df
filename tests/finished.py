"""An invented finished run, for what reads records: report and terminal."""

from __future__ import annotations

from secateur.records import (
    ArmResult,
    Audit,
    Candidate,
    Check,
    Edit,
    Evaluation,
    Excluded,
    Goal,
    GroupSummary,
    Measurement,
    Recovered,
    RunRecord,
    Sensitivity,
    Trial,
    Verdict,
)


def figures(accuracy, latency, size):
    return {
        "accuracy": Measurement(accuracy, "score", "measured", 100, (accuracy - 0.02, accuracy + 0.02), "cpu"),
        "latency": Measurement(latency, "of dense", "measured", 8, (latency - 0.01, latency + 0.01), "cpu", {"p50_ms": latency, "min_ms": 0.08 * latency, "p90_ms": 2, "dense_min_ms": 0.08, "dense_p50_ms": 1, "disturbed": 0.0, "drift": 0.01}),
        "size": Measurement(size, "bytes", "computed"),
        "download": Measurement(size * 0.9, "bytes", "computed"),
        "macs": Measurement(size * 10, "MACs", "computed"),
        "parameters": Measurement(size / 4, "parameters", "computed"),
        "nonzero": Measurement(size / 4, "parameters", "computed"),
        "damage": Measurement(1 - accuracy, "relative squared error", "measured"),
    }  # fmt: skip


DENSE = figures(0.9, 1.0, 1e6)
CUT = Candidate({"a<b>": (Edit("channels", 8, "l2"),)})


def finalist(name, accuracy, latency, **changes):
    given = {
        "name": name, "trial": 2, "candidate": CUT, "searched": figures(accuracy - 0.2, latency, latency * 1e6),
        "measurements": figures(accuracy, latency, latency * 1e6), "folder": name, "epochs": 3, "seconds": 1.0,
    }  # fmt: skip
    return Recovered(**(given | changes))


GOAL = Goal("accuracy", "at_least", 0.85, 0.5, "accuracy within 0.05 of the dense model")


def verdict(name, missed=None, **changes):
    """By default it has passed. missed: what the goal's check says."""
    given = {"on_front": True, "change": None, "test": DENSE["accuracy"]} | changes
    return Verdict(name, checks=(Check(GOAL.text, missed),), **given)


AUDIT = Audit(3, 0.333, 0.012, -0.004, -0.011)
ARMS = (
    ArmResult("search", 3, 0.31),
    ArmResult("uniform", 1, 0.25),
    ArmResult("random", 1, 0.1),
    ArmResult("global", 1, 0.2),
)


def make(finalists, knee, verdicts=()):
    """A record. verdicts: name of a finalist → what of its verdict is not the default."""
    said = dict(verdicts)
    judged = {f.name: verdict(f.name, **said.get(f.name, {})) for f in finalists if f.failure is None}
    trials = (
        Trial(0, "dense", "dense", Evaluation(Candidate({}), "0", DENSE), None),
        Trial(1, "uniform", "uniform 0.5 l2", Evaluation(CUT, "1", figures(0.7, 0.5, 4e5)), None),
        Trial(2, "sampler", "", Evaluation(CUT, "1", figures(0.7, 0.5, 4e5)), 1),
        Trial(3, "sampler", "", Evaluation(CUT, "2", {}, "it broke"), None),
    )
    return RunRecord(
        run_id="r-1", name="a <name>", workload="w", score_name="top-1 accuracy", started="now",
        definition={"name": "x", "search": {"seed": 3}}, environment={"torch": "2"}, device="cpu",
        objectives={"accuracy": "maximize", "latency": "minimize", "size": "minimize"}, goals=(GOAL,),
        audit=AUDIT, arms=ARMS, ended="all trials are done",
        groups=(GroupSummary("a<b>", "Conv2d", 16, 10, 10, ("l2",), (16, 8)), GroupSummary("c", "Conv2d", 8, 10, 10, ("l2",), (8, 4))),
        excluded=(Excluded("z", "Linear", 3, "a <reason>"),), dense={"search": DENSE, "selection": DENSE, "test": DENSE},
        samples=dict.fromkeys(("train", "calibration", "search", "selection", "test"), 100), trials=trials,
        sensitivities=(Sensitivity("a<b>", Edit("channels", 8, "l2"), 0.5, 0.3, 2e6, 5e4, 5e4),), finalists=tuple(finalists), verdicts=judged, knee=knee, seconds={"search": 3.0},
    )  # fmt: skip


RECORD = make(
    [
        finalist("f1-aa", 0.88, 0.4),
        finalist("f2-bb", 0.7, 0.3),
        finalist("f3-cc", 0.89, 0.8),
    ],
    "f1-aa",
    {"f2-bb": {"missed": "-20.0 points", "test": None}},
)
