"""The adapter to torch-pruning: which layers are coupled, and how one layer loses channels.

Source of the method: Fang et al. 2023 (DepGraph), arXiv:2301.12900. Three things are added here: pads of the channel dimension
(`secateur.compression.channel_pads`); bounds on everything that may not end; and an operation that torch-pruning fails on spoils
only the groups that reach it. A coupling that it infers is a claim: `secateur.compression.proof` checks each group by numbers
before anything is cut with it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning import ops
from torch_pruning.dependency import index_mapping, shape_infer
from torch_pruning.dependency.dependency import Dependency
from torch_pruning.pruner.function import prune_depthwise_conv_out_channels

from secateur.compression.channel_pads import PRUNER, ChannelPad, channel_pad, shift_channel_pads
from secateur.compression.copies import copied
from secateur.errors import ModelError, first_line
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


MOST_INFERENCES = 1_000_000
"""Steps that torch-pruning's shape inference may take for one network: a second or two."""
MOST_TIMES = 16
"""How often a group may reach each place there is: once is usual, and a mapping that runs away never stops."""


@dataclass(frozen=True)
class Coupling:
    """What torch-pruning found for one root layer. `problem` says why it cannot be cut, where that is plain already."""

    root: str
    width: int
    members: tuple[Member, ...]
    pinned: frozenset[int]
    problem: str | None


class _Untraceable(Exception):
    """Why the channels of a root layer cannot be followed further; the group stays whole for that reason."""


_MAPPINGS: dict[Any, Callable[[Any, Any], None]] = {
    ops.OPTYPE.CONCAT: index_mapping.update_concat_index_mapping,
    ops.OPTYPE.SPLIT: index_mapping.update_split_index_mapping,
    ops.OPTYPE.RESHAPE: index_mapping.update_reshape_index_mapping,
    ops.OPTYPE.UNBIND: index_mapping.update_unbind_index_mapping,
    ops.OPTYPE.EXPAND: index_mapping.update_expand_index_mapping,
    ops.OPTYPE.SLICE: index_mapping.update_slice_index_mapping,
}


class _Graph(tp.DependencyGraph):  # type: ignore[misc] # torch-pruning publishes no types
    """torch-pruning's dependency graph, with channel pads understood, and with a bound on everything that may not end.

    unknown: nodes whose channels torch-pruning failed to map, with what it raised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pinned: set[int] = set()
        self.unknown: dict[Any, str] = {}
        self._inferences = self._channels = 0
        self.register_customized_layer(ChannelPad, PRUNER)

    def build(self, model: nn.Module, example_inputs: tuple[Tensor, ...]) -> None:
        """As `build_dependency`, but an operation that cannot be mapped spoils only the groups that reach it."""
        self.verbose, self.model = False, model
        self._module2name = {module: name for name, module in model.named_modules()}
        self._param_to_name, self.unwrapped_parameters = self._detect_unwrapped_parameters(None)
        self.module2node = self._trace(model, example_inputs, None, output_transform=None)
        self._build_dependency(self.module2node)
        shape_infer.init_shape_information(self)
        layers = [module for module in self.module2node if isinstance(module, (ops.TORCH_CONV, ops.TORCH_LINEAR))]
        self._channels = sum((width_of(m, "out") or 0) + (width_of(m, "in") or 0) for m in layers)
        for node in self.module2node.values():
            if node.type in _MAPPINGS:
                try:
                    _MAPPINGS[node.type](self, node)
                except Exception as error:  # noqa: BLE001 # whatever torch-pruning raises is the reason why the groups there stay whole
                    self.unknown[node] = f"torch-pruning cannot map {_operation(node)}: {_raised(error)}"
        shift_channel_pads(self.module2node, self.pinned)

    def get_out_channels(self, module_or_node: Any) -> int | None:
        """Asked at every step of torch-pruning's shape inference, which therefore ends here where it would not end."""
        self._inferences += 1
        if self._inferences > MOST_INFERENCES:
            raise _Untraceable(f"the inference of its shapes does not end within {MOST_INFERENCES:,} steps")
        return super().get_out_channels(module_or_node)  # type: ignore[no-any-return] # torch-pruning publishes no types

    def reach(self, root: nn.Module, width: int) -> Iterator[tuple[Dependency, list[tuple[int, int]]]]:
        """Follow all channels of a root layer: each (node, side) once, with pairs (index there, root channel).

        Where an index is reached from several root channels the first one counts, as in torch-pruning. Ends because each pair is
        followed once, and at most `MOST_TIMES` as many as there are places: torch-pruning itself follows whole lists again whenever
        one differs, which does not end on attention with grouped queries. Raises _Untraceable after what was reached until then.
        """
        prune: Any = self.get_pruner_of_module(root).prune_out_channels
        if isinstance(root, ops.TORCH_CONV) and root.groups == root.out_channels > 1:
            prune = prune_depthwise_conv_out_channels
        start = self.module2node[root]
        first = Dependency(prune, prune, source=start, target=start)
        channels = [tp._helpers._HybridIndex(idx=i, root_idx=i) for i in range(width)]
        reached: dict[tuple[Any, Any], tuple[Dependency, dict[int, int]]] = {
            (start, prune): (first, {i: i for i in range(width)})
        }
        seen: dict[tuple[Any, Any], set[Any]] = {(start, prune): set(channels)}
        stack = [(first, channels)]
        problem, steps = None, 0
        most = MOST_TIMES * (width * len(self.module2node) + self._channels)
        while stack and problem is None:
            source, indices = stack.pop()
            problem = self.unknown.get(source.target)
            for edge in source.target.dependencies:
                if not edge.is_triggered_by(source.handler):
                    continue
                moved = indices
                for mapping in edge.index_mapping:
                    moved = moved if mapping is None else mapping(moved)
                if not moved:
                    continue
                place = edge.target, edge.handler
                known = seen.setdefault(place, set())
                fresh = [index for index in moved if index not in known]
                if not fresh:
                    continue
                if any(index.root_idx is None for index in fresh):
                    problem = f"its channels cannot be followed back from {_operation(edge.target)}"
                    break
                known.update(fresh)
                steps += len(fresh)
                entry = reached.setdefault(place, (edge, {}))[1]
                for index in fresh:
                    entry.setdefault(index.idx, index.root_idx)
                stack.append((edge, fresh))
            if steps > most:
                problem = f"its channels cannot be followed through the model: more than {most:,} steps"
        for dependency, entry in reached.values():
            yield dependency, list(entry.items())
        if problem is not None:
            raise _Untraceable(problem)

    def _trace(self, *args: Any, **kwargs: Any) -> dict[nn.Module, Any]:
        nodes: dict[nn.Module, Any] = super()._trace(*args, **kwargs)
        traced = {}
        for module, node in nodes.items():
            pad = channel_pad(node.grad_fn)
            if pad is not None:
                node.module, node.type = pad, ops.OPTYPE.CUSTOMIZED
            traced[pad or module] = node
        return traced


def _operation(node: Any) -> str:
    """A node of torch-pruning's graph, for people: a layer by its name, or an operation."""
    if node._name:
        return f"'{node._name}'"
    name = (
        node.grad_fn.name()
        if node.grad_fn is not None and hasattr(node.grad_fn, "name")
        else type(node.module).__name__
    )
    return f"the operation '{name.removesuffix('0').removesuffix('Backward')}'"


def _raised(error: Exception) -> str:
    return first_line(error) if isinstance(error, _Untraceable) else f"{type(error).__name__}: {first_line(error)}"


def couplings(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> list[Coupling]:
    """Every group of coupled channels that has a convolution or linear layer at its root.

    example_inputs: as `model(*example_inputs)` takes them. The model is copied, not changed. Raises ModelError where
    torch-pruning cannot analyse it.
    """
    traced = copied(model).cpu().eval().requires_grad_(True)
    graph = _Graph()
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # its warnings concern couplings it guessed; the proof judges those
        try:
            graph.build(traced, tuple(x.clone() for x in example_inputs))
        except Exception as error:  # whatever torch-pruning raises, all of its kinds having been seen
            raise ModelError(f"torch-pruning cannot analyse the model: {_raised(error)}") from error
        return list(_read_groups(graph, traced))


def _read_groups(graph: _Graph, model: nn.Module) -> Iterator[Coupling]:
    names = {module: name for name, module in model.named_modules()}
    order = {name: i for i, (name, _) in enumerate(model.named_modules())}
    done: set[str] = set()
    roots = [m for m in graph.module2node if isinstance(m, (ops.TORCH_CONV, ops.TORCH_LINEAR))]
    for root in sorted(roots, key=lambda module: order[names[module]]):
        if names[root] in done:
            continue
        width = int(root.out_features if isinstance(root, nn.Linear) else root.out_channels)
        graph.pinned.clear()
        members: list[Member] = []
        problem: str | None = None
        try:
            for dependency, pairs in graph.reach(root, width):
                member, trouble = _read_member(graph, dependency, pairs, names)
                problem = trouble or problem
                members += [member] if member else []
        except Exception as error:  # noqa: BLE001 # whatever torch-pruning raises makes this group whole, and no other
            problem = problem or (
                _raised(error)
                if isinstance(error, _Untraceable)
                else f"torch-pruning cannot couple it: {_raised(error)}"
            )
        done.update(m.module for m in members if m.side == "out")
        done.add(names[root])
        yield Coupling(names[root], width, tuple(members), frozenset(graph.pinned), problem)


def _read_member(
    graph: _Graph, dependency: Dependency, pairs: list[tuple[int, int]], names: dict[nn.Module, str]
) -> tuple[Member | None, str | None]:
    """One side of one layer that a group reaches, None for anything else; and why it cannot be cut."""
    module = dependency.target.module
    if isinstance(module, nn.Parameter):
        return None, f"it touches the bare parameter '{graph._param_to_name.get(module, '?')}'"
    if module not in names:  # an operation without tensors
        return None, None
    name = names[module]
    kind = next((kind for types, kind in _KINDS if isinstance(module, types)), None)
    if kind is None:
        return None, f"'{name}' is a {type(module).__name__}, which is not cut yet"
    side: Side = "out" if graph.is_out_channel_pruning_fn(dependency.handler) else "in"
    problem = None
    if isinstance(module, ops.TORCH_CONV) and 1 < module.groups < module.out_channels:
        problem = f"'{name}' is a grouped convolution ({module.groups} groups), which is not cut yet"
    width = width_of(module, side)
    if width is not None and not 0 <= min(pairs)[0] <= max(pairs)[0] < width:
        problem = f"torch-pruning couples it with channel {max(pairs)[0]} of '{name}', which has {width}"
    indices, roots = zip(*pairs, strict=True)
    return Member(name, side, kind, tuple(roots), tuple(indices)), problem


def width_of(module: nn.Module, side: Side) -> int | None:
    """Channels of a layer on one side, None where its kind does not say."""
    names = ("out_channels", "out_features") if side == "out" else ("in_channels", "in_features")
    for name in (*names, "num_features", "num_channels", "embedding_dim"):
        if isinstance(value := getattr(module, name, None), int):
            return value
    return None


def prune_layer(module: nn.Module, side: Side, indices: Sequence[int]) -> None:
    """Remove channels of one layer in place. indices: into its current tensors; side: which of its channels."""
    pruner = tp.pruner.function.PrunerBox[ops.module2type(module)]
    (pruner.prune_out_channels if side == "out" else pruner.prune_in_channels)(module, list(indices))
