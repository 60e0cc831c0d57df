"""The command in a process of its own, watched over by the one that was started.

torch, ONNX Runtime and the user's extensions are native code: where it crashes, no Python is left to say so. The parent, which has
imported nothing of the kind, says what crashed and where, and goes on with a run, which has lost no more than the step it was at.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

from secateur.agent.processes import die_with
from secateur.cli.crashes import crash_report
from secateur.cli.interrupts import PASSED_ON, Interruptions
from secateur.cli.notes import OWN, Notes, notes

CRASHES = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}
CRASHED = 70
"""Exit code, as for a bug: EX_SOFTWARE of sysexits.h."""
RETRIES = 2
"""Times a run goes on by itself."""
_PASSED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
"""What others send to the process that they have started, and mean for the one that works."""


def supervise() -> None:
    """Fork. Returns in the child, which does the work; the parent never returns.

    Where that would not do, this very process works: under a debugger, in a thread, in a program that has loaded torch
    already, or on a system other than Linux.
    """
    if (
        sys.platform != "linux"
        or threading.current_thread() is not threading.main_thread()
        or threading.active_count() > 1
        or sys.gettrace() is not None
        or "torch" in sys.modules
    ):
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED | {signal.SIGCHLD})
    ignored = {number for number in _PASSED if signal.getsignal(number) is signal.SIG_IGN}
    for attempt in range(RETRIES + 1):
        own, dump, parent = Notes(), os.memfd_create("faults"), os.getpid()
        _flush()
        child = os.fork()
        if child == 0:
            die_with(parent)
            OWN.append(own)
            faulthandler.enable(dump)
            Interruptions().install()
            # At its end Python takes its handlers back, and one that is passed on late would then kill what has finished.
            atexit.register(signal.signal, PASSED_ON, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if attempt:  # to begin anew is done
                sys.argv = [word for word in sys.argv if word != "--fresh"]
            return
        code = _watch(child, ignored)
        if code >= 0 or -code not in CRASHES:
            _end_like(code, own)
        again = attempt < RETRIES and own.code is None and own.steps > 0 and own.unfinished
        stack = os.pread(dump, 1 << 20, 0).decode(errors="replace")
        os.close(dump)
        _say(crash_report(signal.Signals(-code).name, own, stack, f"{attempt + 1} of {RETRIES}" if again else None))
        if not again:
            os._exit(CRASHED if own.code is None else own.code)


@contextlib.contextmanager
def ending() -> Iterator[None]:
    """Note how the command ends: a crash while the interpreter cleans up behind it takes nothing back."""
    try:
        yield
    except SystemExit as end:
        _flush()
        notes().ended(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def _watch(child: int, ignored: set[signal.Signals]) -> int:
    """Pass signals on until the child has ended. Returns its exit code, or the negative number of its signal."""
    while True:
        received = signal.sigwaitinfo(_PASSED | {signal.SIGCHLD})
        if received.si_signo == signal.SIGCHLD:
            with contextlib.suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0] not in (0, child):
                    pass  # in a container this is the first process, and others' orphans are its to bury
                if ended[0] == child:
                    return os.waitstatus_to_exitcode(ended[1])
        # What a terminal sends (from the kernel, a positive code) has reached the child too.
        elif received.si_code <= 0 and received.si_signo not in ignored:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, PASSED_ON if received.si_signo == signal.SIGINT else received.si_signo)


def _end_like(code: int, own: Notes) -> NoReturn:
    """End as the child has, by the same signal where it was one."""
    if code >= 0:
        os._exit(code)
    if -code == signal.SIGKILL and own.code is None:
        kept = " Whatever was finished is kept; the same command goes on from here." if own.folder else ""
        _say(f"secateur: killed (SIGKILL){own.while_doing}, as the system does where memory runs out.{kept}")
    with contextlib.suppress(OSError):  # SIGKILL has no disposition
        signal.signal(-code, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
    os.kill(os.getpid(), -code)
    os._exit(128 - code)  # a signal that does not end a process


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # a progress bar hides it
        sys.stderr.write(f"{show_cursor}\n{text}\n")
        sys.stderr.flush()
