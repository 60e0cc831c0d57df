"""One forward pass with marked channels: where do the marks arrive?

A layer that reads takes marks out: it gives what it gave in the clean pass, so marks travel from the layers that write to the
layers that read next, and no further. Layers that keep channels apart (norms) pass marks on. So no layer computes anything in a
marked pass; it costs what forward() does between the layers.

A mark is NaN, which survives every arithmetic and spreads through whatever the channel reaches. Operations that swallow NaN
(comparisons, `where`, integers) let the second mark through, a large finite change: whatever differs from the clean pass is marked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateur.compression.copies import viewed
from secateur.compression.coupling.layers import PARAMETER, Layer, layer_of, norm_of, tensors_of
from secateur.compression.short_inputs import shortened
from secateur.errors import first_line
from secateur.records import Side
from secateur.workloads.pytrees import PyTree, call, mapped, rows, tensors

NAN, FINITE = "NaN", "finite"
MARKS = (NAN, FINITE)
MOST_OUTPUTS = 4096
"""Entries of an output that are told apart; of larger ones the last axes are taken together."""
SAMPLES = 2
"""Of the example: dimensions of one are squeezed away by some models."""


@dataclass(frozen=True)
class _Call:
    """One call of a layer in the clean pass. number: among all calls. given: its first tensor."""

    number: int
    given: Tensor
    output: Any


class Astray(Exception):
    """A pass with marks did not go the way of the clean one, and why."""


class Experiment:
    """A copy of a model in which channels can be marked.

    Places are numbers: of every input channel of a layer that reads, of every output channel of one that writes, of every channel
    of one that passes, and of the model's outputs. `place(layer, side)` is where those of one side begin; `outputs` are the last.
    """

    def __init__(self, model: nn.Module, example_inputs: PyTree) -> None:
        """model: in evaluation mode, on the CPU. example_inputs: as in `Workload`."""
        self._model = viewed(model).requires_grad_(False)
        self._clean: dict[str, list[_Call]] = {}
        self._numbers = count()
        self._calls: dict[str, int] = {}
        self._marked: Mapping[str, Tensor] = {}
        self._mark = NAN
        self._seen = torch.zeros(0, dtype=torch.bool)
        self._outputs = self._first_pass(rows(example_inputs, slice(SAMPLES)))
        self.layers = self._layers_called()
        self._starts: dict[tuple[str, Side], int] = {}
        last_calls, end = list[NDArray[np.float64]](), 0
        for layer in self.layers:
            sides: tuple[tuple[Side, int], ...] = (("in", 0 if layer.passes else layer.reads), ("out", layer.writes))
            for side, width in sides:
                self._starts[layer.name, side] = end
                last_calls.append(np.full(width, self._clean[layer.name][-1].number if layer.kind != PARAMETER else -1))
                end += width
            if layer.kind != PARAMETER:
                self._model.get_submodule(layer.name).forward = partial(self._passed, layer)
        size = sum(_apart(torch.ones_like(x, dtype=torch.bool)).numel() for x in self._outputs)
        self.outputs = range(end, end + size)
        self._last_calls = np.concatenate([*last_calls, np.full(size, np.inf)])

    def _first_pass(self, example: PyTree) -> list[Tensor]:
        """The clean pass, on the shortest part of the example that the model takes: marks travel there as they do in all of it."""
        for short in shortened(example):
            try:
                self._inputs = short
                return self._clean_pass()
            except Exception:  # noqa: BLE001 # whatever the user's forward raises where it wants another size
                self._clean = {}
        self._inputs = example
        return self._clean_pass()

    def _clean_pass(self) -> list[Tensor]:
        """What the model gives; and for each layer what it takes and gives, call by call."""
        layers = {name: m for name, m in self._model.named_modules() if layer_of(name, m) or not any(m.children())}
        for name, layer in layers.items():
            layer.forward = partial(self._recorded, name, layer.forward)
        try:
            with _Steps() as steps:
                outputs = self._forward()
        finally:
            for layer in layers.values():
                del layer.forward
        self._most = 10 * steps.taken + 1000
        return [x.clone() for x in outputs]

    def _layers_called(self) -> list[Layer]:
        """Layers that were called, and dimensions of tensors that belong to none of them, in network order."""
        modules = dict(self._model.named_modules())
        called = {
            name: layer
            for name, calls in self._clean.items()
            if (layer := norm_of(name, modules[name], calls[0].given)) is not None
        }
        self._clean = {name: self._clean[name] for name in called}
        layers = [called[name] for name in modules if name in called]
        return [*layers, *tensors_of(self._model, called)]

    def place(self, layer: Layer, side: Side) -> int:
        """The place of the first channel of one side of a layer; those of the others follow."""
        return self._starts[layer.name, side]

    def behind(self, layer: Layer) -> NDArray[np.bool_]:
        """Which places forward() comes to behind the first call of a layer: (places,); all of them where it is a tensor."""
        calls = self._clean.get(layer.name)
        return self._last_calls > (calls[0].number if calls else -1)

    def reach(self, marked: Mapping[str, Sequence[int]], mark: str) -> NDArray[np.bool_]:
        """Which places see something else than in the clean pass when output channels of layers are marked.

        marked: layer name → channels. mark: one of `MARKS`. Returns (places,). Raises Astray where the pass fails.
        """
        self._marked = {name: torch.tensor(channels) for name, channels in marked.items()}
        self._mark, self._calls = mark, {}
        self._seen = torch.zeros(self.outputs.stop, dtype=torch.bool)
        try:
            with self._marked_tensors(), _Steps(self._most):
                outputs = self._forward()
        except Astray:
            raise
        except Exception as error:  # whatever the user's forward raises when a channel is not what it was
            raise Astray(f"forward() raises {type(error).__name__} for other values: {first_line(error)}") from error
        if [x.shape for x in outputs] != [x.shape for x in self._outputs]:
            raise Astray("the shape of the output depends on values")
        apart = [_apart(_differs(x, clean)) for x, clean in zip(outputs, self._outputs, strict=True)]
        self._seen[self.outputs.start :] = torch.cat(apart)
        return self._seen.numpy()

    @torch.no_grad()
    def _forward(self) -> list[Tensor]:
        return tensors(call(self._model, mapped(torch.clone, self._inputs)))

    def _recorded(self, name: str, forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
        x = _first(given, named)
        number, before = next(self._numbers), x.clone() if isinstance(x, Tensor) else None
        output = forward(*given, **named)
        if before is not None and isinstance(output, (Tensor, tuple)):
            self._clean.setdefault(name, []).append(_Call(number, before, mapped(torch.clone, output)))
        return output

    def _passed(self, layer: Layer, *given: Any, **named: Any) -> Any:
        """What a layer gives in a marked pass; notes which marks have arrived at it."""
        number = self._calls[layer.name] = self._calls.get(layer.name, -1) + 1
        if number >= len(self._clean[layer.name]):
            raise Astray(f"'{layer.name}' is called more often than in the clean pass")
        clean = self._clean[layer.name][number]
        marked = self._marked.get(layer.name)
        with torch._C.DisableTorchFunction():  # these steps are not the model's
            output = mapped(torch.clone, clean.output)
            if layer.reads:
                self._note(layer, _first(given, named), clean.given, output)
            if marked is not None:
                for tensor in tensors(output):
                    self._mark_along(layer.axis, torch.unflatten(tensor, layer.axis, (-1, layer.writes)), marked)
        return output

    def _note(self, layer: Layer, x: Tensor, before: Tensor, output: Any) -> None:
        if x.shape != before.shape:
            raise Astray(f"'{layer.name}' is given {tuple(x.shape)} instead of {tuple(before.shape)}")
        if torch.equal(x, before):
            return
        differs = _differs(x, before)
        arrived = differs.movedim(layer.axis, 0).flatten(1).any(1)
        if not arrived.any():
            return
        start = self._starts[layer.name, "out" if layer.passes else "in"]
        self._seen[start : start + len(arrived)] |= arrived
        if layer.passes:
            self._mark_at(differs, output)

    @contextmanager
    def _marked_tensors(self) -> Iterator[None]:
        """While it is open, those tensors hold marks that belong to no layer."""
        changed = list[tuple[Tensor, Tensor]]()
        for name, indices in self._marked.items():
            holder, *part = name.split(":")
            if part:
                tensor = getattr(self._model.get_submodule(holder), part[0])
                changed.append((tensor, tensor.clone()))
                self._mark_along(int(part[1]), tensor, indices)
        try:
            yield
        finally:
            for tensor, clean in reversed(changed):  # two of its dimensions may have been marked
                tensor.copy_(clean)

    def _mark_along(self, axis: int, values: Tensor, channels: Tensor) -> None:
        """Mark channels in place."""
        where = torch.zeros(values.shape[axis], dtype=torch.bool).index_fill_(0, channels, True)
        self._mark_at(where.view(-1, *(1,) * (values.dim() - 1)).movedim(0, axis), values)

    def _mark_at(self, where: Tensor, values: Tensor) -> None:
        """Mark entries in place. where: boolean, of the values' shape or broadcast to it."""
        mark: Tensor | float = torch.nan
        if self._mark == FINITE:  # of different sizes: a sum that is the same everywhere is what a softmax does not see
            random = torch.rand(values.shape, generator=torch.Generator().manual_seed(0))
            mark = (1 + 2 * values.abs().max()) * (1 + random)
        values += torch.where(where, mark, -0.0)  # which changes nothing, not even the sign of a zero


def _first(given: Sequence[Any], named: Mapping[str, Any]) -> Any:
    return given[0] if given else next(iter(named.values()), None)


def _differs(x: Tensor, clean: Tensor) -> Tensor:
    return (x != clean) & (clean == clean)  # what is NaN without marks shows none


def _apart(differs: Tensor) -> Tensor:
    """Which entries of an output differ in some sample: (entries,), the last axes taken together where there are too many."""
    entries = differs.any(0) if differs.dim() > 1 else differs
    while entries.numel() > MOST_OUTPUTS and entries.dim() > 1:
        entries = entries.any(-1)
    return entries.flatten() if entries.numel() <= MOST_OUTPUTS else entries.any()[None]


class _Steps(TorchFunctionMode):
    """Counts torch's functions, and ends a pass that takes many more of them than the clean one: a loop on values may not end."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.taken, self._most = 0, most

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.taken += 1
        if self._most is not None and self.taken > self._most:
            self.taken = 0  # what cleans up behind the exception, no_grad() for one, calls torch's functions too
            raise Astray(f"forward() does not end within {self._most:,} operations")
        return function(*args, **(kwargs or {}))
