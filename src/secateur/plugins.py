"""Registries that installed distributions may add to, through entry points. Nothing is imported before its name is used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Generic, TypeVar

from secateur.errors import PluginError, first_line

T = TypeVar("T")
OURS = "secateur"
"""What the listings name as the distribution of our own entries."""


class Registry(MutableMapping[str, T], Generic[T]):
    """name → entry: our own, those that a project adds by assignment, and those of plug-ins, under the name of the entry point.

    Looking up a plug-in's name imports it. Raises PluginError, which names the distribution, where that fails, where it is not what
    the registry holds, or where a name is taken twice.
    """

    def __init__(
        self,
        group: str,
        kind: type[T],
        own: Mapping[str, T],
        on_load: Callable[[str, T], None] = lambda _name, _entry: None,
    ) -> None:
        """group: of the entry points. kind: what an entry is. on_load: called with each plug-in when it has been imported."""
        self.group, self._kind, self._on_load = group, kind, on_load
        self._own = dict(own)
        self._loaded: dict[str, T] = {}

    @property
    def own(self) -> Mapping[str, T]:
        """Everything but plug-ins."""
        return MappingProxyType(self._own)

    @functools.cached_property
    def _plugins(self) -> Mapping[str, tuple[EntryPoint, ...]]:
        points: dict[str, tuple[EntryPoint, ...]] = {}
        for point in entry_points(group=self.group):
            points[point.name] = (*points.get(point.name, ()), point)
        return points

    def plugin(self, name: str) -> EntryPoint | None:
        """Where a plug-in comes from; None for what is not one."""
        return next(iter(self._plugins.get(name, ())), None)

    def distribution(self, name: str) -> str:
        """Name and version of what brings an entry."""
        return " and ".join(map(distribution_of, self._plugins.get(name, ()))) or OURS

    def __getitem__(self, name: str) -> T:
        if name not in self._plugins:
            return self._own[name]
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
            self._on_load(name, self._loaded[name])
        return self._loaded[name]

    def _load(self, name: str) -> T:
        points = self._plugins[name]
        who = [*([OURS] if name in self._own else []), *map(distribution_of, points)]
        if len(who) > 1:
            raise PluginError(
                f"The name '{name}' in {self.group} is taken by {' and by '.join(who)}. Uninstall one of them, or have it renamed."
            )
        try:
            entry = points[0].load()
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"The plug-in '{name}' ({self.group}) of {who[0]} cannot be imported from {points[0].value}: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error
        if not isinstance(entry, self._kind):
            raise PluginError(
                f"The plug-in '{name}' ({self.group}) of {who[0]} is a {type(entry).__name__}; {points[0].value} must be a "
                f"{self._kind.__module__}.{self._kind.__name__}."
            )
        return entry

    def __setitem__(self, name: str, entry: T) -> None:
        self._own[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._own[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**self._own, **self._plugins})

    def __len__(self) -> int:
        return len({**self._own, **self._plugins})

    def __contains__(self, name: object) -> bool:  # a Mapping's own would import the plug-in
        return name in self._own or name in self._plugins


def distribution_of(point: EntryPoint) -> str:
    """Name and version of the distribution that has an entry point."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown distribution"
