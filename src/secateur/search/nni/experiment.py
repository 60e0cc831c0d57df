"""A supervised NNI experiment: its manager on loopback, watched, and gone with the driver."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.errors import ExperimentBroken
from secateur.search.nni import guardian
from secateur.search.nni.launch import free_port, launch
from secateur.search.nni.rest import Rest
from secateur.search.nni.settings import ExperimentSettings, configuration, trial_command

POLL = 0.5
"""Seconds between two looks at the manager; its own beat is the same."""

SILENCE = 60.0
"""Seconds after which a manager that runs but does not answer counts as broken."""

TUNER_START = 30.0
"""Seconds that the tuner's process gets to appear."""

LATE = 5.0
"""Seconds for which the result of a trial that ended well is waited for: it travels by another way than the end."""

GO_ON = "What had finished is kept; run the same command again to go on."

Values = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A trial that has ended. result: what it finished with, or nothing; then failure says why, or stopped that an assessor did.

    values: the parameters; of a trial without a result those that NNI had meant for it. partial: what a stopped one had reported
    last.
    """

    id: str
    number: int
    values: Values
    result: Values | None = None
    failure: str | None = None
    stopped: bool = False
    partial: Values | None = None


class Experiment:
    """A context manager. Everything it keeps is in `settings.folder`; leaving it stops all of its processes."""

    def __init__(
        self, settings: ExperimentSettings, space: Mapping[str, Any], arguments: Sequence[str], code_folder: Path
    ) -> None:
        """space: NNI's search space. arguments: of the trials' interpreter, run in (a copy of) code_folder."""
        self.settings, self.space, self.arguments, self.code_folder = settings, dict(space), arguments, code_folder
        self.folder = settings.folder.absolute()
        self.id = uuid.uuid4().hex[:8]
        self._guardian: subprocess.Popen[bytes] | None = None
        self._rest = Rest(0)
        self._answered = 0.0
        self._tuner_seen: float | None = None  # since when its process is waited for; None once it was there

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def logs(self) -> Path:
        """Where manager and tuner write."""
        return self.folder / self.id / "log"

    def start(self, seen: Sequence[tuple[Values, float]] = ()) -> str:
        """Start it. Returns the web interface's address.

        seen: earlier results for the tuner; only TPE learns from them, and its first trials may have left already. Give such an
        experiment another seed, or they are those of the earlier one.

        Raises DefinitionError for a remote host without a known key, and ExperimentBroken where the manager does not come up.
        """
        guardian.kill_all(self.folder)  # what an earlier driver may have left
        port = self.settings.port or free_port()
        self._rest = Rest(port)
        self._guardian = launch(self.settings, self.id, port)
        self._within_start(lambda rest: rest.get("check-status"), "was not up")
        command = trial_command(self.settings, self.arguments, str(Path.home()))
        document = configuration(self.settings, self.space, command, self.code_folder.absolute())
        try:
            self._rest.post("experiment", document)
        except OSError as error:
            raise self._broken(f"did not take the experiment ({error})") from error
        if seen:
            data = [{"parameter": values, "value": value} for values, value in seen]
            self._within_start(lambda rest: rest.post("experiment/import-data", data), "had no tuner")
        self._answered = time.monotonic()
        self._tuner_seen = None if seen else self._answered  # a tuner that has been told something is there
        return self._rest.url

    def _within_start(self, attempt: Callable[[Rest], object], what: str) -> None:
        """Until an attempt raises nothing. A manager that is not ready for a request never answers it: ask again."""
        hasty = Rest(self._rest.port, seconds=2.0)
        end = time.monotonic() + self.settings.start_seconds
        while True:
            self._check_guardian("did not start")
            with contextlib.suppress(OSError, ValueError):  # ValueError: 'INITIALIZING' is no JSON
                attempt(hasty)
                return
            if time.monotonic() > end:
                raise self._broken(f"{what} after {self.settings.start_seconds:g} s")
            time.sleep(0.1)

    def finished(self) -> Iterator[Finished]:
        """Every trial once, as it ends, until all have. Raises ExperimentBroken as soon as manager or tuner are gone."""
        yielded: set[str] = set()
        ended: dict[str, float] = {}
        while True:
            status, trials = self._look()
            now = time.monotonic()
            meant = _parameters(trials)
            for trial in trials:
                if trial["status"] in ("WAITING", "RUNNING", "UNKNOWN") or trial["trialJobId"] in yielded:
                    continue
                since = ended.setdefault(trial["trialJobId"], now)
                finished = self._finished(trial, meant)
                if trial["status"] == "SUCCEEDED" and finished.result is None and now - since < LATE:
                    continue
                yielded.add(trial["trialJobId"])
                yield finished
            if len(yielded) == len(trials) and status in ("DONE", "TUNER_NO_MORE_TRIAL"):
                return
            time.sleep(POLL)

    def stop(self) -> None:
        """Stop manager, tuner and trials, here and on the remote host. Harmless where nothing runs."""
        if self._guardian is None:
            return
        assert self._guardian.stdin is not None  # noqa: S101 # it was started with a pipe
        self._guardian.stdin.close()
        try:
            self._guardian.wait(guardian.GRACE + 60)
        except subprocess.TimeoutExpired:
            self._guardian.kill()
            self._guardian.wait()
        guardian.kill_all(self.folder)
        self._guardian = None

    def _look(self) -> tuple[str, list[dict[str, Any]]]:
        """The experiment's status and its trials."""
        self._check_guardian("ended")
        now = time.monotonic()
        try:
            status = self._rest.get("check-status")
            trials = self._rest.get("trial-jobs")
        except OSError as error:
            if now - self._answered > SILENCE:
                raise self._broken(f"has not answered for {SILENCE:g} s ({error})") from error
            return "SILENT", []
        self._answered = now
        if status["status"] == "ERROR":
            raise self._broken(f"reports: {'; '.join(status['errors'])}")
        if status["status"] != "DONE" and self._tuner_is_dead(now):
            raise self._broken("runs on without its tuner, which has died", self.logs / "dispatcher.log")
        return str(status["status"]), list(trials)

    def _tuner_is_dead(self, now: float) -> bool:
        """NNI itself does not look: it would be RUNNING for ever. After an error the tuner's process lives on, but is deaf."""
        log = self.logs / "dispatcher.log"
        if log.is_file() and "Traceback (most recent call last)" in log.read_text(encoding="utf-8", errors="replace"):
            return True
        if guardian.processes_of(self.folder, "--exp_params"):
            self._tuner_seen = None
            return False
        return self._tuner_seen is None or now - self._tuner_seen > TUNER_START

    def _finished(self, trial: Mapping[str, Any], meant: Mapping[str, Values]) -> Finished:
        own = json.loads(trial["hyperParameters"][0])
        identity = (trial["trialJobId"], trial["sequenceId"])
        if trial.get("finalMetricData"):
            metric = trial["finalMetricData"][-1]
            # Trials that start together may get each other's parameters; the result names those that it belongs to.
            values = meant.get(str(metric["parameterId"]), own["parameters"])
            return Finished(*identity, values, json.loads(json.loads(metric["data"])))
        if self._by_assessor(trial):
            return self._stopped(identity, meant, own["parameters"])
        return Finished(*identity, own["parameters"], failure=self._reason(trial))

    def _stopped(self, identity: tuple[str, int], meant: Mapping[str, Values], own: Values) -> Finished:
        reports = self._rest.get(f"metric-data/{identity[0]}?type=PERIODICAL")
        if not reports:
            return Finished(*identity, own, stopped=True)
        last = max(reports, key=lambda report: report["sequence"])
        values = meant.get(str(last["parameterId"]), own)
        return Finished(*identity, values, stopped=True, partial=json.loads(json.loads(last["data"])))

    def _by_assessor(self, trial: Mapping[str, Any]) -> bool:
        """NNI sets its mark of an early stop too late, mostly: then only its log tells who stopped a trial."""
        return trial["status"] == "EARLY_STOPPED" or self._logged(f'cancelTrialJob: "{trial["trialJobId"]}"')

    def _logged(self, words: str) -> bool:
        log = self.logs / "nnimanager.log"
        return log.is_file() and words in log.read_text(encoding="utf-8", errors="replace")

    def _reason(self, trial: Mapping[str, Any]) -> str:
        if trial["status"] == "SUCCEEDED":
            return "the trial ended well, but without a result"
        if trial["status"] != "FAILED":
            by_hand = self._logged(f"User cancelTrialJob: {trial['trialJobId']}")
            return "the trial was cancelled in the web interface" if by_hand else "the trial was lost with its host"
        try:
            lines = self._rest.text(f"trial-file/{trial['trialJobId']}/stderr").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1].strip() if lines else "the trial failed and said nothing"

    def _check_guardian(self, what: str) -> None:
        if self._guardian is None:
            raise RuntimeError("the experiment has not been started")
        if self._guardian.poll() is not None:
            raise self._broken(what)

    def _broken(self, what: str, log: Path | None = None) -> ExperimentBroken:
        """With the end of the log that tells most."""
        log = log or self.folder / "manager.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
        tail = "".join(f"\n  | {line}" for line in lines[-12:])
        return ExperimentBroken(f"NNI's manager {what}. {GO_ON} The end of {log}:{tail or ' nothing'}")


def _parameters(trials: Sequence[Mapping[str, Any]]) -> dict[str, Values]:
    """Parameter id → values."""
    given = [json.loads(text) for trial in trials for text in trial["hyperParameters"]]
    return {str(one["parameter_id"]): one["parameters"] for one in given}
