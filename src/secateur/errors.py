"""The exception tree. Foreign exceptions are mapped to these once, at the edge where they arise.

SecateurError
├── DefinitionError       a YAML file, an override or a name in them is wrong          exit code 2
├── PluginError           an installed plug-in cannot be used                          exit code 2
├── WorkloadError         the factory, the data roles or the weights are wrong         exit code 2
│   ├── DataUnreadable    a sample cannot be read: no network's fault, the run ends and can go on
│   └── NotFinite         a criterion's scores, or the loss they come from: the run goes on without the criterion
├── ModelError            the model cannot be traced, cut or exported                  exit code 2
├── NothingBetter         the run ended without a model worth registering              exit code 3
├── GateFailed            the best finalist is worse than the version that serves      exit code 4
├── StateError            the state directory cannot be used: unwritable, full, locked exit code 75
├── RegistryUnreachable   the tracking server does not answer; flush later             exit code 75
├── DeviceLost            a device cannot be reached, was cut off or is full           exit code 75
│   └── DeviceRefused     its keys, login, interpreter or runtime are not as declared  exit code 2
├── ExperimentBroken      an NNI experiment's manager, tuner or remote host is gone    exit code 75
└── EvaluationFailed      one candidate failed; recorded as that trial's reason        never leaves the search
    └── MeterFailed       the definition's energy_command gives no number of joules    DefinitionError on the dense model
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from secateur.redaction import scrubbed


class SecateurError(Exception):
    """Anything that this package says on purpose. `exit_code` is what the command returns for it."""

    exit_code = 1


class DefinitionError(SecateurError):
    """A definition is wrong. The message starts with `file:line:` (or names the `--set` override)."""

    exit_code = 2


class PluginError(SecateurError):
    """An installed plug-in cannot be imported, or its name is taken; the message names its distribution."""

    exit_code = 2


class WorkloadError(SecateurError):
    """What the user's factory returned, or the files it reads, cannot be used."""

    exit_code = 2


class DataUnreadable(WorkloadError):
    """A data set does not give one of its samples, whatever network it is for. It ends the run, which can go on."""


class NotFinite(WorkloadError):
    """A criterion's scores, or the loss that they come from, are not finite. A run goes on by its other criteria."""


class ModelError(SecateurError):
    """The model cannot be traced, cut or exported; the message names the operation."""

    exit_code = 2


class NothingBetter(SecateurError):
    """The run finished and nothing passed the gate."""

    exit_code = 3


class GateFailed(SecateurError):
    """The run finished, and its best finalist may not take the place of the version that serves."""

    exit_code = 4


class StateError(SecateurError):
    """The state directory cannot be written, is full, or is in use by another run."""

    exit_code = 75


class RegistryUnreachable(SecateurError):
    """The tracking server does not answer. Everything is on disk; `secateur flush` sends it later."""

    exit_code = 75


class DeviceLost(SecateurError):
    """A device cannot be reached, was cut off, or is full. It suspends a search and never scores a trial."""

    exit_code = 75


class DeviceRefused(DeviceLost):
    """A device refuses the login, or is not as the definition declares: host key, login, interpreter, runtime."""

    exit_code = 2


class ExperimentBroken(SecateurError):
    """NNI's manager, its tuner or the way to a remote host is gone. What had finished is kept; the same command goes on."""

    exit_code = 75


class EvaluationFailed(SecateurError):
    """One candidate could not be evaluated. The search records the reason and goes on."""


class MeterFailed(EvaluationFailed):
    """The definition's `energy_command` gave no number of joules. On the dense model no candidate can be at fault."""


def first_line(error: BaseException, most: int = 300) -> str:
    """The first line of a foreign error's message without secrets, or its type where it says nothing.

    All foreign messages that people see pass through here.
    """
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 # a foreign __str__ may raise anything
        text = f"its message cannot be shown: __str__ raises {type(failure).__name__}"
    lines = [line.strip() for line in scrubbed(text).splitlines() if line.strip()]
    return lines[0][:most] if lines else type(error).__name__


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A sentence ' Did you mean …?' for a misspelt name, or nothing where no allowed name is close."""
    allowed = list(allowed)
    begun = [a for a in allowed if name and a.startswith(name)]
    matches = begun or difflib.get_close_matches(name, allowed, n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""
