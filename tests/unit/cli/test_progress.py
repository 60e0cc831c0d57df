from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.progress import Progress

from finished import CUT, DENSE, figures, finalist
from secateur.cli import bar, progress
from secateur.cli.interrupts import Interrupts
from secateur.definition import RecoverDefinition
from secateur.records import Evaluation, Trial

PREPARED = SimpleNamespace(
    definition=SimpleNamespace(
        name="digits", search=SimpleNamespace(trials=4), recover=RecoverDefinition(epochs=2, finalists=2)
    ),
    space=SimpleNamespace(choices=[1, 2], parameters=lambda: [1, 2, 3]),
    costs=SimpleNamespace(total=3_700_000),
    workload=SimpleNamespace(score_name="top-1 accuracy", score_unit="share", data=SimpleNamespace(train=range(9))),
)
RUN = SimpleNamespace(run_id="digits-1")
LEDGER = SimpleNamespace(evaluated=0, archive=SimpleNamespace(values=({"accuracy": 0.9, "size": 5e5},)))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Terminal(progress.Terminal):
    """One whose output is kept, on a clock of the test's."""

    def __init__(self, *, live=True, width=100):
        self.out = io.StringIO()
        console = Console(file=self.out, width=width, force_terminal=live, color_system=None, legacy_windows=False)
        drawn = Progress(progress.TextColumn("{task.description}"), console=console, disable=True)
        super().__init__(drawn, Interrupts(), live=live, clock=Clock())

    @property
    def lines(self):
        return self.out.getvalue().splitlines()

    def tell(self, number, **outcome):
        """Record a trial."""
        evaluated = SimpleNamespace(**{**vars(LEDGER), "evaluated": number})
        self.trial(evaluated, Trial(number, "sampler", "", Evaluation(CUT, str(number), DENSE, **outcome), None))

    @property
    def shown(self):
        """What the bar shows: completed, total, parts."""
        task = self.progress.tasks[0]
        return task.completed, task.total, list(task.fields["parts"])


def begun(**changes):
    terminal = Terminal(**changes)
    terminal.stage("check")
    terminal.prepared(PREPARED, RUN, figures(0.9, 1.0, 1e6))
    return terminal


def test_finished_stages_leave_a_line_with_their_duration():
    terminal = begun()
    terminal.clock.now = 12.0
    terminal.stage("search")
    terminal.tell(1)
    terminal.clock.now = 64.0
    terminal.finished()
    assert terminal.lines[1:] == [
        "✓ definition, data and model are sound, 12 s",
        "✓ searched: 1 networks, front 1, 52 s",
    ]
    assert terminal.progress.tasks == []


def test_the_search_has_its_bar_before_the_first_trial():
    terminal = begun()
    terminal.stage("search")
    assert terminal.shown == (0, 4, [])
    terminal.step("starting workers")
    assert terminal.shown == (0, 4, ["starting workers"])
    terminal.tell(1)
    assert terminal.shown[:2] == (1, 4)


def test_a_step_of_which_a_share_is_done_has_a_bar_and_says_how_long_it_will_take():
    terminal = begun()
    terminal.stage("check")
    terminal.step("proving the groups", 0.0)
    assert terminal.shown == (0, 100, ["proving the groups"])
    terminal.clock.now += 30
    terminal.step("proving the groups", 0.25)
    assert terminal.shown == (25, 100, ["proving the groups", "about 90 s left"])
    terminal.step("opening the device")
    assert terminal.shown[1:] == (0, ["opening the device"]), "nothing is known of the next step"


def test_failures_are_told_once_a_reason_and_counted_with_early_stops():
    terminal = begun()
    terminal.stage("search")
    terminal.tell(1, failure="it [broke]")
    terminal.tell(2, failure="it [broke]")
    terminal.tell(3, stopped="after 8 of 60 samples")
    assert [line for line in terminal.lines if "failed" in line] == ["  trial 1 failed: it [broke]"]
    assert terminal.shown[2][:3] == ["front 1", "2 failed", "1 stopped early"]


def test_the_bar_moves_while_a_finalist_is_exported_and_measured():
    terminal = begun()
    terminal.stage("recover")
    terminal.epoch(1, 2, 1, 0.5)
    assert terminal.shown == (1, 6, ["finalist 1 of 2: loss 0.500"])
    terminal.epoch(1, 2, 1.25, 0.45)
    assert terminal.shown == (1.25, 6, ["finalist 1 of 2: loss 0.450"])
    terminal.epoch(1, 2, 2, 0.4)
    assert terminal.shown == (2, 6, ["finalist 1 of 2: exporting and measuring"])
    terminal.recovered(finalist("f1", 0.88, 0.4))
    assert terminal.shown == (3, 6, [])
    terminal.epoch(2, 2, 1, 0.4)
    terminal.recovered(finalist("f2", 0.8, 0.5, stopped="the loss became NaN"))
    assert terminal.shown[:2] == (6, 6), "epochs that were not needed are over, too"
    assert "  f1: score 68.0 % → 88.0 %, 2.50× faster" in terminal.lines
    terminal.stage("quantize")
    terminal.recovered(finalist("f1-int8", 0.87, 0.2, searched={}))
    assert "  f1-int8: score 87.0 %, 5.00× faster" in terminal.lines
    assert "    fine-tuning stopped early: the loss became NaN" in terminal.lines


def test_epochs_of_finalists_that_are_trained_side_by_side_add_up():
    terminal = begun()
    terminal.stage("recover")
    for number, epoch in ((1, 0.5), (2, 0.25), (2, 1), (1, 1), (2, 2)):
        terminal.epoch(number, 2, epoch, 0.5)
    assert terminal.shown[:2] == (3, 6)
    terminal.recovered(finalist("f1", 0.88, 0.4))
    assert terminal.shown[:2] == (5, 6)


def test_of_a_training_in_minutes_nobody_knows_how_many_epochs_it_has():
    terminal = Terminal()
    recover = RecoverDefinition(minutes=5.0)
    prepared = SimpleNamespace(**{**vars(PREPARED), "definition": SimpleNamespace(name="digits", recover=recover)})
    terminal.prepared_ = prepared
    terminal.stage("recover")
    terminal.epoch(1, 2, 7, 0.5)
    assert terminal.shown == (0, 2, ["finalist 1 of 2: loss 0.500"])
    terminal.recovered(finalist("f1", 0.88, 0.4))
    assert terminal.shown == (1, 2, [])


def test_every_stage_has_its_words():
    assert progress.STAGES.keys() == progress.DONE.keys() == progress.SHORT.keys()
    terminal = begun()
    terminal.stage("refit")
    terminal.finished()
    assert any("finalists refitted and measured" in line for line in terminal.lines)


def test_a_failed_finalist_says_why():
    terminal = begun()
    terminal.stage("recover")
    terminal.recovered(finalist("f1", 0.5, 0.4, measurements={}, failure="it [broke]"))
    assert "  f1 failed: it [broke]" in terminal.lines


def test_off_a_terminal_plain_lines_now_and_then():
    terminal = begun(live=False)
    terminal.stage("search")
    for number in range(1, 5):
        terminal.tell(number)
    terminal.stage("recover")
    terminal.finished()
    assert [line for line in terminal.lines if not line.startswith(" ")] == [
        "checking definition, data and model",
        "digits: 2 groups, 3 dimensions, 3.7 M MACs, dense top-1 accuracy 90.0 %; run digits-1",
        "searching",
        "fine-tuning the finalists",
    ]
    assert terminal.lines[3] == "  1 of 4: front 1, accuracy 0.90…0.90, size 500 k…500 k"


@pytest.mark.parametrize(
    ("width", "text"), [(7, "front 2"), (20, "front 2"), (21, "front 2, size 1 k…2 k"), (6, ""), (-3, "")]
)
def test_parts_are_shown_whole_or_not_at_all(width, text):
    assert bar.whole(["front 2", "size 1 k…2 k"], width) == text


def test_the_bar_stays_on_the_terminal_while_an_export_redirects_standard_error(monkeypatch):
    """torch's exporter runs under `redirect_stderr`: what is drawn meanwhile must not go there."""
    console = Console(stderr=True)
    terminal, swallowed = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with bar.pinned(console):
        monkeypatch.setattr(sys, "stderr", swallowed)
        console.print("a bar")
    assert (terminal.getvalue(), swallowed.getvalue()) == ("a bar\n", "")
    console.print("later")
    assert swallowed.getvalue() == "later\n", "afterwards it follows sys.stderr again"
