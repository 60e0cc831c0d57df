"""Which weights are zero while a network is trained: those that are so already, or others from time to time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn

from secateur.compression.masks import by_row, keep_zero, spread, zeros_in
from secateur.compression.transforms import TRANSFORMS
from secateur.records import Edit, Group, Plan, scored_as

Ranking: TypeAlias = Literal["gradual", "movement"]
"""By what masks are chosen in training: `gradual` by magnitude, `movement` by scores that are learnt beside the weights."""
RAMP = 0.6
"""Share of a training after which masks are final."""
UPDATES = 50
"""Times that masks are chosen until then."""


class Masks(Protocol):
    """Is told of every step of a training, and keeps weights at zero."""

    def before(self, done: float, /) -> None:
        """A step begins. done: share of the training that is over; 1 when it has ended."""
        ...

    def graded(self) -> None:
        """Gradients lie in the parameters; nothing has been changed yet."""
        ...

    def stepped(self) -> None:
        """The optimizer has changed the weights."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What training goes on from after a restart."""
        ...

    def restore(self, state: Mapping[str, Tensor], /) -> None:
        """The other way round."""
        ...


MasksOf: TypeAlias = Callable[[nn.Module], Masks]
"""Makes them for the network that is trained."""


class KeptMasks:
    """Weights that are zero stay so. See `Masks`."""

    def __init__(self, layers: Sequence[str], student: nn.Module) -> None:
        """layers: those whose zeros are kept; in others zeros may change."""
        self._zeros = zeros_in(student, layers)

    def before(self, _done: float) -> None:
        """Nothing."""

    def graded(self) -> None:
        """Weights that are zero have no gradient: it would count in the norm that is clipped."""
        self._follow()
        for weight, zeros in self._zeros:
            if weight.grad is not None:
                weight.grad.masked_fill_(zeros, 0.0)

    def stepped(self) -> None:
        """Back to zero: weight decay and momenta of what was there before may have moved them."""
        self._follow()
        keep_zero(self._zeros)

    def state(self) -> dict[str, Tensor]:
        """The weights say it all."""
        return {}

    def restore(self, _state: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def _follow(self) -> None:
        """To the weights' device: a user's own training moves the network where it likes."""
        self._zeros = [(weight, zeros.to(weight.device)) for weight, zeros in self._zeros]


class LearnedMasks:
    """More and more weights become zero, up to what edits ask for; which of them, is chosen anew up to `RAMP`. See `Masks`.

    The share of zeros rises by a cubic schedule: s_f (1 - (1 - p)³) (Zhu & Gupta 2017, arXiv:1710.01878). A weight that is zero
    keeps the value that it had, and has it again when it comes back. `gradual` ranks these values by magnitude; `movement` by what
    the steps say of them, S = -Σ ∂L/∂w · w with the gradient of the masked weight: what moves away from zero stays (Sanh et al.
    2020, arXiv:2005.07683; all steps count the same).
    """

    def __init__(self, edited: Sequence[tuple[Group, Edit]], by: Ranking, student: nn.Module) -> None:
        """edited: groups of the student with weights, and what is done to these."""
        self._edited, self._student = edited, student
        names = dict.fromkeys(own.layer for group, _ in edited for own in group.weights)
        self._weights = {name: cast("nn.Parameter", student.get_submodule(name).weight) for name in names}
        self._zeros = {name: torch.zeros_like(w, dtype=torch.bool) for name, w in self._weights.items()}
        self._asleep = {name: torch.zeros_like(w) for name, w in self._weights.items()}
        self._scores = {name: torch.zeros_like(w) for name, w in self._weights.items() if by == "movement"}
        self._chosen = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def before(self, done: float) -> None:
        """Choose, where it is time to."""
        due = min(int(done / RAMP * UPDATES), UPDATES)
        if due > int(self._chosen):
            self._choose(due / UPDATES)
            self._chosen.fill_(due)

    @torch.no_grad()
    def graded(self) -> None:
        """Scores follow the gradients; weights that are zero have none, so that no momentum gathers."""
        for name, weight in self._weights.items():
            if weight.grad is None:
                continue
            if name in self._scores and torch.isfinite(weight.grad).all():  # float16 may overflow
                self._scores[name] -= weight.grad * self._awake(name)
            weight.grad.masked_fill_(self._zeros[name], 0.0)

    def stepped(self) -> None:
        """Back to zero."""
        keep_zero((weight, self._zeros[name]) for name, weight in self._weights.items())

    def state(self) -> dict[str, Tensor]:
        """Masks, the values behind them, scores, and how often they have been chosen."""
        kept = {"zeros": self._zeros, "asleep": self._asleep, "scores": self._scores}
        return {"chosen": self._chosen} | {
            f"{what}.{name}": tensor for what, tensors in kept.items() for name, tensor in tensors.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """The other way round."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def _awake(self, name: str) -> Tensor:
        """A layer's weights as they are, or were when they became zero."""
        return torch.where(self._zeros[name], self._asleep[name], self._weights[name].detach())

    def _choose(self, progress: float) -> None:
        values = {name: self._awake(name) for name in self._weights}
        scores = self._scores or {name: value.abs() for name, value in values.items()}
        for zeros in self._zeros.values():
            zeros.zero_()
        for group, edit in self._edited:
            final = edit.kept(group.width)
            now = edit.keeping(final + (1 - final) * (1 - progress) ** 3, group.width)
            own = {scored_as(now.method): self._of(group, scores)}
            for mask in Plan(TRANSFORMS[now.transform].steps(group, now, own, Plan())).masks:
                layer = self._student.get_submodule(mask.layer)
                self._zeros[mask.layer] |= spread(layer, mask).to(self._zeros[mask.layer].device)
        for name, weight in self._weights.items():
            self._asleep[name].copy_(values[name])
            weight.copy_(values[name].masked_fill(self._zeros[name], 0.0))

    def _of(self, group: Group, scores: Mapping[str, Tensor]) -> Tensor:
        """The scores of a group's weights, layer by layer, row by row, as transforms read them."""
        parts = [
            by_row(self._student.get_submodule(own.layer), scores[own.layer])[[*own.rows]] for own in group.weights
        ]
        return torch.cat([part.flatten().cpu() for part in parts])


def kept(layers: Sequence[str]) -> MasksOf:
    """Layers of which the weights that are zero stay so."""
    return partial(KeptMasks, tuple(layers))


NO_MASKS = kept(())


def learned(edited: Sequence[tuple[Group, Edit]], by: Ranking) -> MasksOf:
    """Groups of the network that is trained, whose weights become zero by and by."""
    return partial(LearnedMasks, tuple(edited), by)
