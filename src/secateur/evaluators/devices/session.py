"""The host's side of one device: conversations with its agent, and who is at fault where one breaks off."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from secateur.agent.latency import Protocol
from secateur.agent.runtimes import RUNTIMES
from secateur.agent.serve import IDLE
from secateur.errors import DeviceLost, DeviceRefused, EvaluationFailed
from secateur.evaluators.devices.conversation import AgentDied, Conversation
from secateur.evaluators.devices.report import Hello
from secateur.evaluators.devices.transport import Transport
from secateur.evaluators.devices.work import Measured, Setup, Work

T = TypeVar("T")

RETRIES = (0.0, 2.0, 8.0)
"""Seconds to wait before each attempt to reach a device that was lost."""


class Device:
    """One device. `measure` may be called from one thread at a time."""

    def __init__(self, transport: Transport, setup: Setup, wait: Callable[[float], None] = time.sleep) -> None:
        """Nothing is opened yet."""
        self.name, self.setup = transport.name, setup
        self._transport, self._wait = transport, wait
        self._conversation: Conversation | None = None
        self._hello: Hello | None = None

    @property
    def hello(self) -> Hello:
        """What the device says of itself. Raises DeviceLost or DeviceRefused."""
        return self._hello or self._reached(lambda: self._conversing().hello)

    @property
    def fingerprint(self) -> str:
        """Of the device with its runtime."""
        defaults = RUNTIMES[self.setup.runtime].chosen({})
        changed = {name: value for name, value in self.setup.options.items() if defaults.get(name) != value}
        return self.hello.fingerprint(self.setup.runtime, self.setup.threads, changed)

    def measure(self, work: Work) -> Measured:
        """Run it there. Raises EvaluationFailed where the candidate is at fault, DeviceLost where the device is.

        A lost device is looked for again, three times within half a minute. An agent that dies twice over a candidate is the
        candidate's fault only if it then measures the reference.
        """
        try:
            return self._twice(work)
        except AgentDied as death:
            try:
                self._twice(Work(work.reference, work.reference, work.inputs, Protocol(block=1, copies=2, rounds=1)))
            except (AgentDied, EvaluationFailed) as error:
                raise DeviceLost(
                    f"{self.name}: {death}, and does not measure the reference model either ({error})."
                ) from error
            raise EvaluationFailed(f"on {self.name} {death}, twice; the reference model runs there") from death

    def close(self) -> None:
        """End the agent and the connection."""
        self._hang_up()
        self._transport.close()

    def _twice(self, work: Work) -> Measured:
        try:
            return self._reached(lambda: self._conversing().measure(work))
        except AgentDied:
            return self._reached(lambda: self._conversing().measure(work))

    def _reached(self, attempt: Callable[[], T]) -> T:
        """Do something there, on a new connection where the old one is gone."""
        for number, pause in enumerate(RETRIES, start=1):
            self._wait(pause)
            try:
                return attempt()
            except DeviceRefused:
                self._hang_up()
                raise
            except DeviceLost:
                self._hang_up()
                self._transport.close()
                if number == len(RETRIES):
                    raise
        raise AssertionError  # the last attempt returns or raises

    def _conversing(self) -> Conversation:
        """The conversation that goes on, or a new one."""
        if self._conversation is not None and self._conversation.idle > IDLE / 2:
            self._hang_up()  # the agent may have gone by itself, or be about to
        if self._conversation is None or self._conversation.over:
            self._conversation = Conversation(self._transport, self.setup)
            self._hello = self._conversation.hello
        return self._conversation

    def _hang_up(self) -> None:
        if self._conversation is not None:
            self._conversation.end()
            self._conversation = None
