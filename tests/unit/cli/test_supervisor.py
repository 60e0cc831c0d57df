"""The watching process, with programs of a few lines in the command's place; no torch is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from secateur.cli.crashes import frame_of
from waiting import LIMIT, until

HEADER = """
import ctypes, os, signal, sys, time
from pathlib import Path
from secateur.cli.notes import notes
from secateur.cli.supervisor import ending, supervise

def crash():
    ctypes.string_at(0)

def count(name):
    with open(name, "a") as file:
        file.write("x")
    return len(open(name).read())

folder = Path(sys.argv[1])
supervise()
"""


def start(folder: Path, body: str, *arguments: str, **options):
    program = folder / "program.py"
    program.write_text(HEADER + textwrap.dedent(body))
    return subprocess.Popen(
        [sys.executable, str(program), str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
        preexec_fn=_heed_signals,
        **options,
    )


def _heed_signals():
    """What started the tests in the background has made them ignore these, and a child inherits that."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run(folder: Path, body: str, *arguments: str):
    process = start(folder, body, *arguments)
    out, err = process.communicate(timeout=LIMIT)
    return process.returncode, out, err


def gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize("code", [0, 3, 130])
def test_it_ends_as_the_work_does(tmp_path, code):
    ended, out, err = run(tmp_path, f"print('done')\nwith ending():\n    sys.exit({code})")
    assert (ended, out, err) == (code, "done\n", "")


def test_a_crash_is_one_line_with_the_frame_and_the_stack_in_a_file(tmp_path):
    code, _, err = run(tmp_path, "notes().stage('checking the model')\ncrash()")
    assert code == 70
    (line,) = err.strip().splitlines()
    assert "native code crashed (SIGSEGV) while checking the model, in " in line
    assert f"{tmp_path / 'program.py'}:8 (crash)" in line
    stack = Path(line.partition("The stack is in ")[2].split()[0].rstrip("."))
    assert "string_at" in stack.read_text()
    assert stack.stat().st_uid == os.getuid()


RUN = """
    made = folder / "run"
    made.mkdir(exist_ok=True)
    notes().stage("searching")
    notes().run(made)
"""


def test_a_run_goes_on_by_itself_and_does_not_begin_anew(tmp_path):
    body = (
        textwrap.dedent(RUN)
        + "notes().step()\nprint(sys.argv[2:], flush=True)\nif count(folder / 'n') == 1: os.abort()"
    )
    code, out, err = run(tmp_path, body, "run", "--fresh")
    assert code == 0
    assert out.splitlines() == ["['run', '--fresh']", "['run']"]
    assert "(SIGABRT) while searching" in err
    assert "Going on with the run from what was finished (1 of 2)." in err
    (stack,) = (tmp_path / "run").glob("crash-*.txt")
    assert "Aborted" in stack.read_text()
    assert "SIGABRT" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(("steps", "starts"), [(0, 1), (1, 3)])
def test_it_goes_on_twice_and_only_where_something_was_done(tmp_path, steps, starts):
    body = textwrap.dedent(RUN) + f"for _ in range({steps}): notes().step()\ncount(folder / 'n')\ncrash()"
    code, _, err = run(tmp_path, body)
    assert code == 70
    assert len((tmp_path / "n").read_text()) == starts
    assert "Whatever was finished is kept; go on with: secateur resume run" in err


def test_a_finished_run_is_not_begun_again(tmp_path):
    body = textwrap.dedent(RUN) + "notes().step()\n(made / 'done').touch()\ncount(folder / 'n')\ncrash()"
    assert run(tmp_path, body)[0] == 70
    assert (tmp_path / "n").read_text() == "x"


def test_a_crash_after_the_end_takes_nothing_back(tmp_path):
    code, out, err = run(
        tmp_path, "import atexit\natexit.register(crash)\nprint('table')\nwith ending():\n    sys.exit(3)"
    )
    assert (code, out) == (3, "table\n")
    assert "after everything was done; the outcome stands" in err


WAIT = """
    from secateur.cli.interrupts import Interrupts
    (folder / "pid").write_text(str(os.getpid()))
    seen = 0
    with Interrupts():
        while True:
            try:
                (folder / f"ready{seen}").touch()
                time.sleep(60)
            except KeyboardInterrupt:
                seen += 1
                enough = (folder / "enough").exists()
                print("interrupted", flush=True)
                if enough:
                    break
    sys.exit(130)
"""


def waiting_program(tmp_path):
    process = start(tmp_path, textwrap.dedent(WAIT), start_new_session=True)
    until(lambda: (tmp_path / "ready0").exists(), alive=process)
    return process, int((tmp_path / "pid").read_text())


def test_a_control_c_to_the_watcher_alone_is_passed_on(tmp_path):
    process, _ = waiting_program(tmp_path)
    (tmp_path / "enough").touch()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=LIMIT)[0] == "interrupted\n"
    assert process.returncode == 130


def test_a_control_c_to_the_whole_group_is_one(tmp_path):
    process, _ = waiting_program(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    until(lambda: (tmp_path / "ready1").exists(), alive=process)
    (tmp_path / "enough").touch()
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=LIMIT)[0] == "interrupted\n"
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_ends_by_the_signal_that_it_passed_on(tmp_path, number):
    process, child = waiting_program(tmp_path)
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == -number
    assert err == ""
    assert gone(child)


def test_nothing_outlives_a_watcher_that_is_killed(tmp_path):
    process, child = waiting_program(tmp_path)
    process.kill()
    process.communicate(timeout=LIMIT)
    until(lambda: gone(child))


def test_a_kill_of_the_work_is_said(tmp_path):
    process, child = waiting_program(tmp_path)
    os.kill(child, signal.SIGKILL)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGKILL
    assert "killed (SIGKILL), as the system does where memory runs out" in err


@pytest.mark.parametrize(
    "condition",
    [
        "sys.modules['torch'] = sys",
        "sys.settrace(lambda *_: None)",
        "import threading; threading.Thread(target=lambda: time.sleep(60), daemon=True).start()",
    ],
)
def test_it_does_not_fork_where_that_would_not_do(tmp_path, condition):
    header = "import sys, os, time\n" + condition + "\nfirst = os.getpid()\n"
    program = tmp_path / "program.py"
    program.write_text(header + HEADER + "print(os.getpid() == first)")
    done = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_the_frame_is_a_persons_own_where_there_is_one():
    stack = (
        "Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n"
        '  File "/keys/other.py", line 9 in idle\n\nCurrent thread 0x2 (most recent call first):\n'
        f'  File "{os.__file__}", line 3 in read\n  File "/keys/model.py", line 12 in forward\n'
        '  File "/keys/train.py", line 1 in main\n\nExtension modules: numpy\n'
    )
    assert frame_of(stack) == "/keys/model.py:12 (forward)"
    assert frame_of("Fatal Python error: Aborted\n\n<no Python frame>\n") is None
