"""The state of a training between two steps, in one safetensors file: training goes on from it bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from secateur.files import write
from secateur.recovery.curve import Curve
from secateur.recovery.loop import Learner, Progress

FORMAT = 3
"""A file in another one is not read: training begins anew."""


class Checkpoint:
    """Weights and projections, what optimizer and masks remember, the average of the weights, the scale of the loss, the progress.

    Random numbers need no place in it: every step draws from its own seed.
    """

    def __init__(self, learner: Learner, file: Path | None, minutes: float, clock: Callable[[], float]) -> None:
        """Puts the learner into the state that the file holds, where there is one. file: None to keep nothing.

        minutes: between two files, within an epoch. clock: of seconds.
        """
        self._learner, self._file, self._seconds, self._clock = learner, file, 60 * minutes, clock
        self._kept = clock()
        self.progress = Progress()
        self.before = learner.result()
        if file is not None and file.is_file():
            self._load(file)

    def finish(self) -> None:
        """An epoch is over. Raises StateError where the disk does not take the file."""
        self.before = self._learner.result()
        self._write({})

    def now_and_then(self) -> None:
        """A step within an epoch is over. Raises what `finish` raises."""
        if self._clock() - self._kept >= self._seconds:
            self._write({f"before.{name}": tensor for name, tensor in self.before.items()})

    def _write(self, before: Mapping[str, Tensor]) -> None:
        if self._file is None:
            return
        learner = self._learner
        tensors = {
            f"{part}.{name}": t for part, module in learner.modules.items() for name, t in module.state_dict().items()
        }
        tensors |= {f"optimizer.{key}.{name}": own[key] for name, own in self._remembered() for key in own}
        tensors |= {f"masks.{name}": tensor for name, tensor in learner.masks.state().items()}
        if learner.average is not None:
            tensors |= {f"average.{name}": tensor for name, tensor in learner.average.tensors.items()}
        tensors |= before
        metadata = {"format": FORMAT, "progress": asdict(self.progress), "scaler": learner.scaler.state_dict()}
        copies = {
            name: t.clone(memory_format=torch.contiguous_format) for name, t in tensors.items()
        }  # ties are refused
        write(self._file, save(copies, metadata={"training": json.dumps(metadata)}))
        self._kept = self._clock()

    def _remembered(self) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """What the optimizer remembers of each parameter: momenta, and steps."""
        for name, parameter in self._learner.named_parameters():
            state = self._learner.optimizer.state[parameter]
            yield name, {key: value for key, value in state.items() if isinstance(value, Tensor)}

    def _load(self, file: Path) -> None:
        with safe_open(file, framework="pt") as stored:
            training = json.loads((stored.metadata() or {}).get("training", "{}"))
            if training.get("format") != FORMAT:
                return
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 # not a mapping

        def under(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

        learner, progress = self._learner, training["progress"]
        curves = {name: Curve(**progress[name]) for name in ("curve", "scores")}
        self.progress = Progress(**{**progress, **curves, "losses": tuple(progress["losses"])})
        if training["scaler"]:
            learner.scaler.load_state_dict(training["scaler"])
        for part, module in learner.modules.items():
            module.load_state_dict(under(f"{part}."))
        learner.masks.restore(under("masks."))
        if learner.average is not None:
            learner.average.restore(under("average."), self.progress.steps)
        optimizer = under("optimizer.")
        for name, parameter in learner.named_parameters():
            for key in (key for key, _, own in (n.partition(".") for n in optimizer) if own == name):
                value = optimizer[f"{key}.{name}"]
                # In the parameter's own layout: another one may round differently.
                like = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
                learner.optimizer.state[parameter][key] = like.copy_(value).detach()
        self.before = {name: t.to(learner.device) for name, t in under("before.").items()} or learner.result()
