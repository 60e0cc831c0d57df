"""The block `search.nni`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from secateur.definition.declared import Declared, Name


class NniRemoteDefinition(Declared):
    """A host on which NNI runs the trials, over ssh with a key. Password authentication is not supported."""

    host: Name = Field(description="Name or address.")
    port: int = Field(22, ge=1, le=65535, description="Port of its ssh server.")
    user: Name = Field(description="Login on the host.")
    key_file: str = Field(
        description="Private key without a passphrase; a path on this machine, relative to the project."
    )
    known_hosts: str = Field(
        "~/.ssh/known_hosts",
        description="File on this machine with the host's key; a host whose key is not in it is refused.",
    )
    python: str = Field(
        description="Interpreter on the remote host, with secateur[nni] of this version; nothing is installed there."
    )
    project: str = Field(
        description="The project's folder on the remote host, with the same workload, weights and data."
    )

    @field_validator("python", "project")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError(f"'{value}' must be an absolute path, as the host has it")
        return value


class NniDefinition(Declared):
    """What only an NNI experiment has."""

    assessor: Literal["medianstop"] | None = Field(
        None,
        description="Ends a trial whose figures after `fidelities.first_images` are below the median of the earlier ones.",
    )
    port: int = Field(0, ge=0, le=65535, description="Port of NNI's web interface, on loopback only; 0 for a free one.")
    remote: NniRemoteDefinition | None = Field(None, description="Where trials run. Default: on this machine.")
