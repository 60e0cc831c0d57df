"""What an NNI experiment may be: which tuners work, where trials run, and all of it in NNI's own words."""

from __future__ import annotations

import base64
import hashlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nni.experiment.config import AlgorithmConfig, ExperimentConfig, LocalConfig, RemoteConfig, RemoteMachineConfig

from secateur.errors import DefinitionError, nearest
from secateur.search.nni.names import ASSESSORS, BROKEN, TUNERS

POPULATION = 10
"""Of evolution, whose first generation is random. NNI's own 32 is made for thousands of trials."""


@dataclass(frozen=True)
class RemoteMachine:
    """A host on which trials run, reached over ssh with a key.

    python: absolute path of its interpreter, with nni 3.0 (nothing is installed there). known_hosts: the host's key must stand in
    it. key_file: a private key without a passphrase.
    """

    host: str
    user: str
    python: str
    key_file: Path
    known_hosts: Path
    port: int = 22

    def ssh(self) -> list[str]:
        """The ssh command up to and including the host."""
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
            "ExitOnForwardFailure": "yes",
            "ServerAliveInterval": "15",
        }
        spelt = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return ["ssh", *spelt, "-i", str(self.key_file), "-p", str(self.port), f"{self.user}@{self.host}"]

    def key_hashes(self) -> list[str]:
        """SHA-256 of the host's keys in known_hosts, in base64. Raises DefinitionError where it has none."""
        for tool in ("ssh", "ssh-keygen"):
            if shutil.which(tool) is None:
                raise DefinitionError(f"trials on {self.host} need OpenSSH here: '{tool}' is not installed")
        name = self.host if self.port == 22 else f"[{self.host}]:{self.port}"
        listed = subprocess.run(  # noqa: S603 # our own command
            ["ssh-keygen", "-F", name, "-f", str(self.known_hosts)],  # noqa: S607
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        keys = [line.split()[2] for line in listed.stdout.splitlines() if line and not line.startswith("#")]
        if not keys:
            raise DefinitionError(
                f"{self.known_hosts} has no key of {name}. Compare its fingerprint and add it: "
                f"ssh-keyscan -p {self.port} {self.host} >> {self.known_hosts}"
            )
        return [base64.b64encode(hashlib.sha256(base64.b64decode(key)).digest()).decode() for key in keys]


@dataclass(frozen=True)
class ExperimentSettings:
    """How NNI searches. Raises DefinitionError for a tuner or an assessor that is unknown or does not work.

    folder: state and logs; one experiment at a time. trials: how many end it, None for no end. port: of the web UI, 0 for a
    free one. start_seconds: until a manager that is not up counts as failed. environment: further variables of the trials.
    """

    tuner: str
    trials: int | None
    folder: Path
    assessor: str | None = None
    concurrency: int = 1
    seed: int = 0
    port: int = 0
    remote: RemoteMachine | None = None
    start_seconds: float = 60.0
    environment: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if self.tuner in BROKEN:
            raise DefinitionError(
                f"NNI's tuner '{self.tuner}' cannot be used: {BROKEN[self.tuner]}. Working: {', '.join(TUNERS)}."
            )
        for kind, name, allowed in (("tuner", self.tuner, TUNERS), ("assessor", self.assessor, ASSESSORS)):
            if name is not None and name not in allowed:
                raise DefinitionError(
                    f"unknown NNI {kind} '{name}'.{nearest(name, allowed)} Allowed: {', '.join(sorted(allowed))}."
                )


def trial_command(settings: ExperimentSettings, arguments: Sequence[str], home: str) -> str:
    """What NNI gives to a shell for each trial.

    `exec`, because NNI stops trials by a signal to the shell, which would leave the interpreter running.
    """
    environment = dict(settings.environment or {})
    if settings.remote is None:
        environment.setdefault("HOME", home)  # the manager runs with another one
        python = sys.executable
    else:
        python = settings.remote.python
    variables = [f"{name}={value}" for name, value in environment.items()]
    return "exec " + shlex.join(["env", *variables, python, *arguments])


def configuration(
    settings: ExperimentSettings, space: Mapping[str, Any], command: str, code_folder: Path
) -> dict[str, Any]:
    """The experiment in the words of NNI's REST interface. Results are maximised."""
    tuner_arguments: dict[str, Any] = {"optimize_mode": "maximize"}
    if settings.tuner in ("tpe", "random"):
        tuner_arguments["seed"] = settings.seed
    if settings.tuner == "evolution":  # it hands out no more than a population at a time
        tuner_arguments["population_size"] = max(POPULATION, 2 * settings.concurrency)
    assessor = None
    if settings.assessor is not None:
        assessor = AlgorithmConfig(name=ASSESSORS[settings.assessor], class_args={"optimize_mode": "maximize"})
    service = LocalConfig(use_active_gpu=True)
    if settings.remote is not None:
        machine = settings.remote
        service = RemoteConfig(
            reuse_mode=False,  # the other mode needs pkg_resources and waits for ever without
            nni_manager_ip="127.0.0.1",  # the end of our tunnel
            machine_list=[
                RemoteMachineConfig(
                    host=machine.host,
                    port=machine.port,
                    user=machine.user,
                    ssh_key_file=str(machine.key_file),
                    python_path=str(PurePosixPath(machine.python).parent),
                )
            ],
        )
    config = ExperimentConfig(
        experiment_name="secateur",
        search_space=dict(space),
        trial_command=command,
        trial_code_directory=str(code_folder),
        trial_concurrency=settings.concurrency,
        max_trial_number=settings.trials,
        experiment_working_directory=str(settings.folder),
        tuner=AlgorithmConfig(name=TUNERS[settings.tuner], class_args=tuner_arguments),
        assessor=assessor,
        training_service=service,
    )
    document: dict[str, Any] = config.json()
    return document
