"""A training of the user's own: what it is given, what holds meanwhile, and what is asked of what it gives back."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import Dataset

from secateur.compression.copies import copied
from secateur.compression.gates import gated_blocks
from secateur.compression.masks import zeros_in
from secateur.definition import RecoverDefinition
from secateur.errors import DefinitionError, EvaluationFailed, WorkloadError, first_line
from secateur.files import disk_errors, write
from secateur.gating.prices import prices_of
from secateur.plugins import Registry
from secateur.records import Workload
from secateur.recovery.attention import Attention
from secateur.recovery.fine_tune import Training, Tuned
from secateur.recovery.masks import KeptMasks
from secateur.recovery.randomness import seeded
from secateur.recovery.terms import Batch, gate_terms, terms_of, total
from secateur.workloads.calls import calling
from secateur.workloads.live import found_trainer
from secateur.workloads.loading import load_attribute
from secateur.workloads.samples import Collate, collate_of

TRAINING = "training"
"""The folder of a trainer's files, in that of the finalist."""


@dataclass(frozen=True)
class Budget:
    """How long a trainer may train, and where. One of epochs, training_steps and minutes is set, as in `recover`.

    minutes: what earlier attempts have left of them. device: `cpu` or `cuda`; the model comes on the CPU. seed: the global random
    numbers start from it. folder: for files of the trainer's own, kept until the training is over. progress: what `save` was given
    last by an attempt that was killed, whose weights the model then has; None at the beginning.
    """

    epochs: int | None
    training_steps: int | None
    minutes: float | None
    device: str
    seed: int
    folder: Path
    progress: Any = None


@dataclass(frozen=True)
class TrainingData:
    """What a trainer may learn from; search, selection and test data are kept from it.

    train, calibration: map-style data sets, as in the workload; calibration is for looking at, as it may lie in train. collate:
    samples → (inputs, targets); inputs are a tensor where the model takes one, else a tuple or dict of its arguments. loss:
    (outputs, targets) → scalar, the workload's. objective: (inputs, outputs, targets) → scalar, what the built-in trainer
    minimises: loss, distillation and the budget of gates, as `recover` has them; with teacher and model on the inputs' device.
    augment: the workload's, or None.
    """

    train: Dataset[Any]
    calibration: Dataset[Any]
    collate: Collate
    loss: Callable[[Any, Any], Tensor]
    objective: Callable[[Any, Any, Any], Tensor]
    augment: Callable[[Any, torch.Generator], Any] | None = None


Save: TypeAlias = Callable[[nn.Module, Any], None]
"""`save(model, progress)`: a killed run goes on from the last one. progress: numbers, text, tensors in lists and dicts, such as the
state of an optimizer; where it is a dict with `epoch` and `loss`, these are shown and kept as the built-in trainer's are."""
Function: TypeAlias = Callable[[nn.Module, nn.Module, TrainingData, Budget, Save], nn.Module]
"""`train(model, teacher, data, budget, save) → model`, the one that it was given."""

TRAINERS: Registry[Function] = Registry("secateur.trainers", Callable, {})  # type: ignore[arg-type] # any callable
"""Those of plug-ins, by a name that stands for `module:attribute` in a pipeline."""


@dataclass(frozen=True)
class Trainer:
    """A function with its name in the definition and a digest of the file that it is written in."""

    name: str
    function: Function
    digest: str = ""


def trainer_of(settings: RecoverDefinition, root: Path) -> Trainer | None:
    """The trainer that a definition names. root: the project's folder.

    Raises DefinitionError where there is none of that name, or where it does not take what it is given.
    """
    if settings.trainer is None:
        return None
    name, where = settings.trainer, settings.where("trainer")
    function: Any = found_trainer(name)
    if function is None:
        function = TRAINERS[name] if name in TRAINERS else load_attribute(name, root, where, "trainer")
    with contextlib.suppress(ValueError):  # some functions that are written in C do not say
        try:
            inspect.signature(function).bind("model", "teacher", "data", "budget", "save")
        except TypeError as error:
            raise DefinitionError(
                f"{where}: {name} is called as train(model, teacher, data, budget, save): {first_line(error)}."
            ) from error
    return Trainer(name, function, source_digest(function))


def source_digest(function: Callable[..., Any]) -> str:
    """Hash of the file that a function is written in, of its own text where it is in none, and of what a partial has set."""
    given = ""
    while isinstance(function, partial):
        values = (*function.args, *(value for pair in sorted(function.keywords.items()) for value in pair))
        given, function = given + ",".join(map(_told_apart, values)), function.func
    written: Any = inspect.unwrap(function) if inspect.isroutine(function) else type(function)
    try:
        source = Path(inspect.getsourcefile(written) or "").read_bytes()
    except (TypeError, OSError):
        try:
            source = inspect.getsource(written).encode()
        except (TypeError, OSError):  # typed into an interpreter
            source = getattr(getattr(written, "__code__", None), "co_code", b"")
    return hashlib.sha256(source + given.encode()).hexdigest()[:12]


def _told_apart(value: object) -> str:
    """What tells a partial's arguments apart in every process: an address does not."""
    if callable(value):
        return source_digest(value)
    text = repr(value)
    return type(value).__qualname__ if " at 0x" in text else text


def train_with(
    trainer: Trainer,
    student: nn.Module,
    teacher: nn.Module,
    workload: Workload,
    settings: RecoverDefinition,
    training: Training,
    masked: Sequence[str] = (),
) -> Tuned:
    """Have a trainer train a copy of the student, beside a copy of the teacher. masked: layers whose zeros stay.

    training: with a checkpoint, beside which the trainer's folder lies.
    Meanwhile zeros are set again after each step of any optimizer of torch's, and have no gradient in it. Batch norms are left as
    the trainer leaves them. Raises WorkloadError with what the trainer raises, EvaluationFailed where what it returns is another
    network.
    """
    given, taught = copied(student).float(), copied(teacher).float().eval().requires_grad_(False)
    data = _data(workload, given, taught, settings)
    assert training.checkpoint is not None  # noqa: S101 # Tuning gives one
    folder = training.checkpoint.with_name(TRAINING)
    with disk_errors(folder / "file"):
        folder.mkdir(parents=True, exist_ok=True)
    state = _Saved(given, folder / "checkpoint.pt", training)
    minutes = None if settings.minutes is None else max(0.0, settings.minutes - state.seconds / 60)
    budget = Budget(
        settings.epochs, settings.training_steps, minutes, training.device, training.seed, folder, state.progress
    )
    threads = torch.get_num_threads()
    what = f"The trainer {trainer.name}"
    try:
        with seeded(training.seed), _kept_zero(given, masked), calling(what, trainer.function):
            returned = trainer.function(given, taught, data, budget, state.save)
    finally:
        torch.set_num_threads(threads)
    seconds = state.spent()
    trained = _accepted(returned, student, masked, what)
    return Tuned(trained, len(state.losses), seconds, None, tuple(state.losses.values()))


def _data(workload: Workload, student: nn.Module, teacher: nn.Module, settings: RecoverDefinition) -> TrainingData:
    maps = Attention(student, teacher, settings.distill, workload.example_inputs)
    terms = terms_of(workload, teacher, settings.distill) + maps.terms
    if settings.gates and gated_blocks(student):
        terms += gate_terms(student, prices_of(student, workload.example_inputs), settings.gates)
    roles, pair = workload.data, collate_of(workload.data.train)

    def collate(samples: list[Any]) -> Any:
        inputs, targets = pair(samples)
        only = isinstance(inputs, tuple) and len(inputs) == 1
        return (inputs[0] if only else inputs), targets

    return TrainingData(
        roles.train,
        roles.calibration,
        collate,
        workload.loss,
        lambda inputs, outputs, targets: total(terms, Batch(inputs, outputs, targets)),
        workload.augment,
    )


class _Saved:
    """What a trainer saves. progress, seconds, losses (by epoch): of earlier attempts; the model gets their weights."""

    def __init__(self, model: nn.Module, file: Path, training: Training) -> None:
        self._file, self._training, self._began = file, training, training.clock()
        self.progress: Any = None
        self.seconds, self.losses = 0.0, dict[int, float]()
        if file.is_file():
            kept = torch.load(file, map_location="cpu", weights_only=True)
            model.load_state_dict(kept["weights"])
            self.progress, self.seconds, self.losses = kept["progress"], kept["seconds"], kept["losses"]

    def spent(self) -> float:
        """Seconds of all attempts."""
        return self.seconds + self._training.clock() - self._began

    def save(self, model: nn.Module, progress: Any) -> None:
        """Raises WorkloadError where the progress holds what cannot be kept, StateError where the disk does not take it."""
        told = _told(progress)
        if told is not None:
            self.losses[told[0]] = told[1]
        kept = {"weights": model.state_dict(), "progress": progress, "seconds": self.spent(), "losses": self.losses}
        buffer = io.BytesIO()
        try:
            torch.save(kept, buffer)
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
        except Exception as error:  # pickle raises whatever an object's own methods raise
            raise WorkloadError(
                "save(model, progress): the progress cannot be kept: it may hold numbers, text and tensors, in lists and dicts "
                f"({first_line(error)})."
            ) from error
        write(self._file, buffer.getvalue())
        if told is not None:
            self._training.on_epoch(*told)


def _told(progress: Any) -> tuple[int, float] | None:
    """Epoch and loss, where a progress has them."""
    if not isinstance(progress, dict):
        return None
    epoch, loss = progress.get("epoch"), progress.get("loss")
    return (epoch, float(loss)) if isinstance(epoch, int) and isinstance(loss, (int, float)) else None


@contextlib.contextmanager
def _kept_zero(model: nn.Module, masked: Sequence[str]) -> Iterator[None]:
    """Inside, weights of the model that are zero stay so at each step of an optimizer of torch's."""
    masks = KeptMasks(masked, model)
    before = register_optimizer_step_pre_hook(lambda *_: masks.graded())
    after = register_optimizer_step_post_hook(lambda *_: masks.stepped())
    try:
        yield
    finally:
        before.remove()
        after.remove()


def _accepted(returned: Any, student: nn.Module, masked: Sequence[str], what: str) -> nn.Module:
    """A copy of the student with the weights of what was returned. Raises EvaluationFailed, which names what is not as it was."""
    if not isinstance(returned, nn.Module):
        raise EvaluationFailed(
            f"{what} returned a {type(returned).__name__}; it must return the module that it was given, trained."
        )
    for says, was, now in (
        ("layer", _kinds(student), _kinds(returned)),
        ("tensor", _shapes(student), _shapes(returned)),
    ):
        changed = [name for name in {**was, **now} if was.get(name) != now.get(name)]
        if changed:
            name = changed[0]
            more = f", and so are {len(changed) - 1} others" if changed[1:] else ""
            raise EvaluationFailed(
                f"{what} changed the structure of the network: the {says} '{name}' was {was.get(name, 'not there')} and is "
                f"{now.get(name, 'not there')}{more}. It must return the module that it was given."
            )
    state = returned.state_dict()
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise EvaluationFailed(f"{what} returned weights that are not finite: '{name}' holds NaN or infinity.")
    for layer, (weight, zeros) in zip(masked, zeros_in(student, masked), strict=True):
        now = state[f"{layer}.weight"].to(weight.device)
        if broken := int(now[zeros].count_nonzero()):
            raise EvaluationFailed(
                f"{what} has brought {broken} of {int(zeros.sum())} weights of '{layer}' back that are to stay zero. Train the "
                "module that you were given, with an optimizer of torch's, or set them to zero after each step."
            )
    trained: nn.Module = copied(student)
    trained.load_state_dict(state)
    return trained.float().cpu().eval()


def _kinds(model: nn.Module) -> dict[str, str]:
    return {name: f"a {type(layer).__name__}" for name, layer in model.named_modules() if name}


def _shapes(model: nn.Module) -> dict[str, str]:
    return {name: f"{tuple(tensor.shape)}" for name, tensor in model.state_dict().items()}
