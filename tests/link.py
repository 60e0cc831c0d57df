"""A link between two ports on loopback that a test can cut, freeze or slow down."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator

LATE = 1.0
"""Seconds that a slow link makes up for; what it was idle for longer is lost."""


class Link:
    """Forwards connections to a port. Change `frozen`, `bytes_a_second` and `cut_after` (bytes towards the port) at any time."""

    def __init__(self, target: int) -> None:
        self.target, self.frozen, self.up = target, False, True
        self.bytes_a_second: float | None = None
        self.cut_after: int | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._over, self._free = False, 0.0
        self._thread = threading.Thread(target=self._forward)
        self._thread.start()

    def cut(self) -> None:
        """Close every connection, and every new one at once."""
        self.up = False

    def restore(self) -> None:
        self.up, self.frozen, self.cut_after, self.bytes_a_second = True, False, None, None

    def close(self) -> None:
        self._over = True
        self._thread.join()

    def _forward(self) -> None:
        while not self._over:
            if not self.up:
                self._drop_all()
            if self.frozen:
                time.sleep(0.02)
                continue
            for key, _ in self._selector.select(0.02):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._pairs:
                    self._pass_on(key.fileobj)
        self._drop_all()
        self._listener.close()
        self._selector.close()

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if not self.up:
            near.close()
            return
        try:
            far = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[one] = other
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        target = self._pairs[source]
        try:
            data = source.recv(2048 if self.bytes_a_second else 65536)
            if not data:
                self._drop(source)
                return
            target.sendall(data)
        except OSError:
            self._drop(source)
            return
        if self.bytes_a_second:
            # On a busy machine a sleep lasts longer than it is told to: what it owes is made up for by the next ones.
            self._free = max(self._free, time.monotonic() - LATE) + len(data) / self.bytes_a_second
            time.sleep(max(0.0, self._free - time.monotonic()))
        if self.cut_after is not None:
            self.cut_after -= len(data)
            if self.cut_after <= 0:
                self.up = False

    def _drop(self, one: socket.socket) -> None:
        for end in (one, self._pairs[one]):
            self._selector.unregister(end)
            del self._pairs[end]
            end.close()

    def _drop_all(self) -> None:
        while self._pairs:
            self._drop(next(iter(self._pairs)))


@contextlib.contextmanager
def link_to(port: int) -> Iterator[Link]:
    link = Link(port)
    try:
        yield link
    finally:
        link.close()
