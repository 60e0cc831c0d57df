"""The one door to torch-pruning: which layers are coupled, and how one layer loses channels.

Source of the method: Fang et al. 2023 (DepGraph), arXiv:2301.12900. Two things are added here. Constant padding of the
channel dimension (the option-A shortcut of CIFAR ResNets, He et al. 2015) couples channel `c` before the pad with `c + offset`
behind it; torch-pruning 1.6 takes the pad for an element-wise operation and would couple `c` with `c`. And a coupling that
torch-pruning infers is a claim: `secateur.compression.groups` checks each group by numbers before anything is cut with it.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning import ops

from secateur.errors import ModelError
from secateur.records import Member, Side

_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (nn.modules.conv._ConvTransposeNd, "transposed convolution"),
    (ops.TORCH_CONV, "convolution"),
    (ops.TORCH_LINEAR, "linear"),
    (ops.TORCH_BATCHNORM, "batch norm"),
    (ops.TORCH_LAYERNORM, "layer norm"),
    (ops.TORCH_GROUPNORM, "group norm"),
    (ops.TORCH_INSTANCENORM, "instance norm"),
    (ops.TORCH_PRELU, "prelu"),
    (ops.TORCH_EMBED, "embedding"),
)


@dataclass(frozen=True)
class Coupling:
    """What torch-pruning found for one root layer. `problem` says why it cannot be cut, where that is plain already."""

    root: str
    width: int
    members: tuple[Member, ...]
    pinned: frozenset[int]
    problem: str | None


class _ChannelPad(nn.Module):
    """Stands in the graph for a constant pad of the channel dimension: `before` channels of zeros come first."""

    def __init__(self, channels_in: int, before: int, channels_out: int) -> None:
        super().__init__()
        self.channels_in, self.before, self.channels_out = channels_in, before, channels_out


class _ChannelPadPruner(ops.DummyPruner):  # type: ignore[misc] # torch-pruning publishes no types
    """A pad has no tensors to cut; it tells the shape inference how many channels it takes and gives."""

    def prune_out_channels(self, layer: _ChannelPad, idxs: Sequence[int]) -> _ChannelPad:  # noqa: ARG002 # their signature
        return layer

    prune_in_channels = (
        prune_out_channels  # one function for both sides is how torch-pruning states "sides are coupled"
    )

    def get_out_channels(self, layer: _ChannelPad) -> int:
        return layer.channels_out

    def get_in_channels(self, layer: _ChannelPad) -> int:
        return layer.channels_in


class _Shift:
    """Maps channel indices across a pad; root channels that land in the padding are pinned: the zeros cannot shrink."""

    def __init__(self, offset: int, size: int, pinned: set[int]) -> None:
        self.offset, self.size, self.pinned = offset, size, pinned

    def __call__(self, indices: list[Any]) -> list[Any]:
        moved = []
        for index in indices:
            target = index.idx + self.offset
            if 0 <= target < self.size:
                moved.append(index._replace(idx=target))
            else:
                self.pinned.add(index.root_idx)
        return moved


class _Graph(tp.DependencyGraph):  # type: ignore[misc] # torch-pruning publishes no types
    """torch-pruning's dependency graph, with channel pads understood."""

    def __init__(self) -> None:
        super().__init__()
        self.pinned: set[int] = set()
        self.register_customized_layer(_ChannelPad, _ChannelPadPruner())

    def _trace(self, *args: Any, **kwargs: Any) -> dict[nn.Module, Any]:
        nodes: dict[nn.Module, Any] = super()._trace(*args, **kwargs)
        traced = {}
        for module, node in nodes.items():
            pad = _channel_pad(node.grad_fn)
            if pad is not None:
                node.module, node.type = pad, ops.OPTYPE.CUSTOMIZED
            traced[pad or module] = node
        return traced

    def shift_channel_pads(self) -> None:
        """Put the offset on every edge behind a pad; the edges before it already speak the pad's input coordinates."""
        for pad, node in self.module2node.items():
            if not isinstance(pad, _ChannelPad):
                continue
            for behind in node.outputs:
                for edge in [e for e in node.dependencies if e.target is behind]:
                    _add_mapping(edge, _Shift(pad.before, pad.channels_out, self.pinned))
                for edge in [e for e in behind.dependencies if e.target is node]:
                    _add_mapping(edge, _Shift(-pad.before, pad.channels_in, self.pinned))


def _add_mapping(edge: Any, mapping: _Shift) -> None:
    slot = 0 if edge.index_mapping[0] is None else 1
    edge.index_mapping[slot] = mapping


def _channel_pad(grad_fn: Any) -> _ChannelPad | None:
    """The pad that this autograd node computes, if it pads the channel dimension (1; the only one of a matrix)."""
    if grad_fn is None or not grad_fn.name().startswith("ConstantPadNd"):
        return None
    shape = tuple(grad_fn._input_metadata[0].shape)  # the shape of the forward output
    amounts = list(grad_fn._saved_pad)
    position = 2 * (len(shape) - 2)  # pads are listed from the last dimension backwards, two numbers each
    before, after = [*amounts[position : position + 2], 0, 0][:2]
    if before == 0 and after == 0:
        return None
    return _ChannelPad(shape[1] - before - after, before, shape[1])


def couplings(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[Coupling]:
    """Every group of coupled channels that has a convolution or linear layer at its root.

    example_inputs: as `model(*example_inputs)` takes them. The model is copied, not changed. Raises ModelError where
    torch-pruning cannot analyse it.
    """
    traced = copy.deepcopy(model).cpu().eval().requires_grad_(True)
    graph = _Graph()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its warnings concern couplings it guessed; the proof judges those
        try:
            graph.build_dependency(traced, example_inputs, verbose=False)
        except (RuntimeError, ValueError, AttributeError, IndexError, TypeError, KeyError, AssertionError) as error:
            raise ModelError(f"torch-pruning cannot analyse the model: {type(error).__name__}: {error}") from error
        graph.shift_channel_pads()
        return list(_read_groups(graph, traced))


def _read_groups(graph: _Graph, model: nn.Module) -> Iterator[Coupling]:
    names = {module: name for name, module in model.named_modules()}
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    seen: set[str] = set()
    roots = [m for m in graph.module2node if isinstance(m, (ops.TORCH_CONV, ops.TORCH_LINEAR))]
    for root in sorted(roots, key=lambda module: order[names[module]]):
        if names[root] in seen:
            continue
        pruner = graph.get_pruner_of_module(root)
        width = int(pruner.get_out_channels(root))
        graph.pinned.clear()
        try:
            items = graph.get_pruning_group(root, pruner.prune_out_channels, list(range(width)))
            members, problem = _read_members(graph, items, names)
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError, AssertionError) as error:
            members, problem = (), f"torch-pruning cannot couple it: {type(error).__name__}: {error}"
        seen.update(m.module for m in members if m.side == "out")
        seen.add(names[root])
        yield Coupling(names[root], width, members, frozenset(graph.pinned), problem)


def _read_members(graph: _Graph, group: Any, names: dict[nn.Module, str]) -> tuple[tuple[Member, ...], str | None]:
    members: list[Member] = []
    problem: str | None = None
    for position in range(len(group)):
        dependency, indices = group[position]
        module, roots = dependency.target.module, group[position].root_idxs
        if isinstance(module, nn.Parameter):
            problem = f"it touches the bare parameter '{graph._param_to_name.get(module, '?')}'"
            continue
        if module not in names:  # an operation without tensors
            continue
        if any(root is None for root in roots):
            problem = f"the channels of '{names[module]}' cannot be followed back to the root layer"
            continue
        kind = next((kind for types, kind in _KINDS if isinstance(module, types)), None)
        if kind is None:
            problem = f"'{names[module]}' is a {type(module).__name__}, which is not cut yet"
            continue
        if isinstance(module, ops.TORCH_CONV) and 1 < module.groups < module.out_channels:
            problem = f"'{names[module]}' is a grouped convolution ({module.groups} groups), which is not cut yet"
        side: Side = "out" if graph.is_out_channel_pruning_fn(dependency.handler) else "in"
        members.append(Member(names[module], side, kind, tuple(roots), tuple(indices)))
    return tuple(members), problem


def check_forward(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
    """One forward pass, with an eye on what tracing needs: one output tensor, with a gradient path to the weights.

    Raises ModelError naming the innermost layer where it fails.
    """
    model = copy.deepcopy(model).requires_grad_(True)
    entered: list[str] = []

    def leave(*_: object) -> None:  # a hook that returns something would replace the layer's output
        entered.pop()

    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: entered.append(name)))
        hooks.append(module.register_forward_hook(leave))
    try:
        outputs = model(*example_inputs)
    except Exception as error:  # whatever the user's forward raises becomes one clear error
        where = f"layer '{entered[-1]}' ({type(model.get_submodule(entered[-1])).__name__})" if entered else "the model"
        raise ModelError(f"The forward pass fails in {where}: {type(error).__name__}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(outputs, Tensor):
        raise ModelError(
            f"The model returns a {type(outputs).__name__}; one tensor is needed. Wrap the model so that forward() returns "
            "the tensor that loss and score take."
        )
    if outputs.grad_fn is None:
        raise ModelError(
            "The model's output carries no gradient, so its layers cannot be traced. Look for torch.no_grad(), .detach(), "
            ".data, argmax() or a conversion to numpy in forward()."
        )


def prune_layer(module: nn.Module, side: Side, indices: Sequence[int]) -> None:
    """Remove channels of one layer in place. indices: into its current tensors; side: which of its channels."""
    pruner = tp.pruner.function.PrunerBox[ops.module2type(module)]
    (pruner.prune_out_channels if side == "out" else pruner.prune_in_channels)(module, list(indices))
