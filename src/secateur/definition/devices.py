"""Where models are measured, as YAML says it: `device: local`, or a block with `kind: ssh` or `kind: adb`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
)
from pydantic_core import PydanticCustomError

from secateur.definition.declared import Declared
from secateur.plugins import Registry

_HOST = re.compile(r"(?P<user>[A-Za-z0-9._-]+)@(?P<host>[A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\])(:(?P<port>\d{1,5}))?")


class LocalDevice(Declared):
    """This host, in a process of its own, kept to as many cores as it has threads."""

    kind: Literal["local"] = "local"


class SshDevice(Declared):
    """Boards that are reached over ssh, with a key. Password authentication is not supported."""

    kind: Literal["ssh"]
    hosts: list[str] = Field(
        min_length=1,
        description="`user@host` or `user@host:port`; several of one kind form a pool, and candidates are spread over it.",
        examples=[["pi@raspberrypi.local"]],
    )
    key_file: str | None = Field(
        None,
        description="Private key without a passphrase; relative to the project. Default: the keys of the running ssh-agent.",
    )
    known_hosts: str = Field(
        "~/.ssh/known_hosts",
        description="File on this machine with the hosts' keys; a host whose key is not in it is refused.",
    )
    python: str = Field(
        "python3",
        description="Starts Python 3.9 or newer on the device, with numpy and the runtime: a path or a command (`docker run …`).",
    )
    folder: str = Field(
        ".cache/secateur",
        description="Folder on the device for the measuring program and models; relative to the login's home.",
    )
    connect_seconds: float = Field(
        10.0, gt=0.0, le=3600.0, description="A host that has not answered by then cannot be reached."
    )
    keepalive_seconds: float = Field(
        2.0,
        gt=0.0,
        le=3600.0,
        description="Interval of keep-alive messages; a link that is silent for three times as long counts as cut.",
    )

    @field_validator("hosts")
    @classmethod
    def _named(cls, value: list[str]) -> list[str]:
        for host in value:
            if not _HOST.fullmatch(host):
                raise ValueError(f"'{host}' must be user@host or user@host:port; passwords are not supported")
        if len(set(value)) != len(value):
            raise ValueError("a host is listed twice")
        return value

    def addresses(self) -> list[tuple[str, int]]:
        """`user@host` and port of each."""
        matches = [_HOST.fullmatch(host) for host in self.hosts]
        return [(f"{m['user']}@{m['host'].strip('[]')}", int(m["port"] or 22)) for m in matches if m]


class AdbDevice(Declared):
    """Android devices that the Android Debug Bridge reaches."""

    kind: Literal["adb"]
    serials: list[str] = Field(
        default=[], description="As `adb devices` lists them; several form a pool. Default: the only one that is there."
    )
    adb: str = Field("adb", description="The adb command on this host.")
    python: str = Field(
        "/data/local/tmp/python/bin/python3",
        description="Python 3.9 or newer on the device, with numpy and the runtime.",
    )
    folder: str = Field(
        "/data/local/tmp/secateur", description="Folder on the device for the measuring program and models."
    )


def _spelled_out(value: Any) -> Any:
    """`local` is short for a block that says no more than that."""
    return {"kind": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class DeviceKind:
    """A kind of device that a plug-in brings.

    definition: its block in YAML, with a `kind`, and with `python` and `folder` as SshDevice has them. open: that block and the
    project's folder → a `secateur.evaluators.devices.transport.Transport` for each device. summary: one line for people.
    """

    definition: type[Declared]
    open: Callable[[Any, Path], Sequence[Any]]
    summary: str


DEVICE_KINDS: Registry[DeviceKind] = Registry("secateur.devices", DeviceKind, {})
"""Kinds beside local, ssh and adb, by `kind`."""


_OWN_KINDS = [get_args(own.model_fields["kind"].annotation)[0] for own in (LocalDevice, SshDevice, AdbDevice)]


def _plugged_in(value: Any, ours: ValidatorFunctionWrapHandler) -> Any:
    """A block of a plug-in's kind is validated by the plug-in's model; an unknown kind is told all that there are."""
    kind = value.get("kind") if isinstance(value, dict) else None
    known = [*_OWN_KINDS, *DEVICE_KINDS]
    if isinstance(kind, str) and kind not in known:
        raise PydanticCustomError("union_tag_invalid", "unknown kind", {"tag": kind, "expected_tags": ", ".join(known)})
    if not isinstance(kind, str) or kind not in DEVICE_KINDS:
        return ours(value)
    try:
        return DEVICE_KINDS[kind].definition.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _dumped(value: Declared) -> dict[str, Any]:
    return value.model_dump(mode="json")


DeviceDefinition = Annotated[
    Annotated[LocalDevice | SshDevice | AdbDevice, Field(discriminator="kind")],
    WrapValidator(_plugged_in),
    BeforeValidator(_spelled_out),
    PlainSerializer(_dumped, when_used="json"),
]
