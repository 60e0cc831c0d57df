"""Worker processes that are real, evaluating nothing: each job's one cut says what becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import psutil
import pytest

from secateur.errors import DataUnreadable, StateError
from secateur.execution import Inline, Pool, Trained
from secateur.execution.protocol import DRIVER
from secateur.records import Candidate, Edit, Evaluation, Fidelity, Job, Plan, Recovered, TrainingJob
from waiting import LIMIT, until

WORKER = """
    import os, signal, sys, time
    from pathlib import Path
    from secateur.errors import DataUnreadable, ModelError, StateError
    from secateur.execution.protocol import Skills, serve
    from secateur.records import Evaluation, Measurement

    folder = Path(sys.argv[1])

    def evaluate(job):
        (what, (edit,)), = job.candidate.edits.items()
        print("chatter of a user's code", flush=True)
        with (folder / "begun").open("a") as log:
            log.write(what + "\\n")
        if what == "raise":
            raise ValueError("the metric\\ndivides by nought")
        if what == "unreadable":
            raise DataUnreadable("The data role 'train': sample 7 raised OSError: stale file handle")
        if what == "hang":
            time.sleep(600)
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "die once" and not (folder / "died").exists():
            (folder / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "eat":
            eaten = [bytearray(2**20) for _ in range(4096)]
        time.sleep(1.2 if what == "train" else 0.02)
        return Evaluation(job.candidate, "", {"size": Measurement(float(edit.level), "bytes", "computed")})

    def train(job, on_epoch):
        what = job.finalist.name
        with (folder / "begun").open("a") as log:
            log.write(f"{what} with {job.threads} threads\\n")
        on_epoch(0.5, 2.0)
        on_epoch(1, 1.5)
        if what == "raise":
            raise ValueError("a bug")
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "full":
            raise StateError("the disk is full")
        return "the loss is lost" if what == "fail" else None

    def prepare():
        if "refuse" in sys.argv:
            raise ModelError("it cannot be traced here")
        if "stillborn" in sys.argv:
            print("no such library", file=sys.stderr)
            os._exit(3)
        if "asleep" in sys.argv or ("asleep once" in sys.argv and not (folder / "slept").exists()):
            (folder / "slept").touch()
            time.sleep(600)
        return Skills(evaluate, train)

    serve(prepare, 0.6 if "limited" in sys.argv else None)
"""


@pytest.fixture
def pool(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    opened = []

    def open_pool(workers=1, *arguments, **limits):
        command = [sys.executable, str(script), str(tmp_path), *arguments]
        opened.append(Pool(command, workers, tmp_path / "logs", **({"seconds": 60.0} | limits)))
        return opened[-1]

    yield open_pool
    for made in opened:
        made.__exit__()
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(script) in (p.info["cmdline"] or ())]


def job(what, level=1):
    return Job(Candidate({what: (Edit("channels", level, "l2"),)}), Plan())


def training(name):
    return TrainingJob(Recovered(name, 1, Candidate({}), {}, {}, f"finalists/{name}", 0, 0.0), threads=3)


def begun(tmp_path):
    return (tmp_path / "begun").read_text().split("\n")[:-1]


def test_every_job_comes_back_once_with_its_own_answer(pool, tmp_path):
    made = pool(3)
    for number in range(12):
        made.submit(number, job(f"n{number}", number))
    answers = dict(made.wait() for _ in range(12))
    assert {n: e.measurements["size"].value for n, e in answers.items()} == {n: float(n) for n in range(12)}
    assert len(begun(tmp_path)) == 12
    logs = [log.read_text() for log in (tmp_path / "logs").glob("worker-*.log")]
    assert any("chatter" in text for text in logs), "what user code prints does not meet the protocol"


def test_what_a_candidate_raises_is_its_failure(pool):
    made = pool()
    made.submit(1, job("raise"))
    made.submit(2, job("fine", 7))
    answers = dict(made.wait() for _ in range(2))
    assert answers[1].failure == "ValueError: the metric"
    assert answers[2].measurements["size"].value == 7


def test_a_sample_that_cannot_be_read_is_no_candidates_failure(pool):
    made = pool()
    made.submit(1, job("unreadable"))
    with pytest.raises(DataUnreadable, match="sample 7 raised OSError: stale file handle"):
        made.wait()


def test_a_candidate_that_hangs_is_ended_and_the_next_one_runs(pool, tmp_path):
    made = pool(1, seconds=1.0)
    made.submit(1, job("hang"))
    made.submit(2, replace(job("train"), fidelity=Fidelity(steps=9)))
    answers = dict(made.wait() for _ in range(2))
    assert answers[1].failure == "it took longer than 1 s"
    assert answers[2].failure is None, "training may take longer"
    assert begun(tmp_path) == ["hang", "train"], "what hangs is not tried again"


def test_a_candidate_whose_worker_dies_is_tried_again_and_counted(pool, tmp_path):
    made = pool()
    made.submit(1, job("die once"))
    _, evaluation = made.wait()
    assert (evaluation.failure, evaluation.attempts) == (None, 2)
    made.submit(2, job("die"))
    made.submit(3, job("fine"))
    answers = dict(made.wait() for _ in range(2))
    assert answers[2].failure == "its worker died 3 times, the last time by signal 9"
    assert answers[2].attempts == 3
    assert answers[3].failure is None
    assert begun(tmp_path).count("die") == 3


def test_a_candidate_that_eats_memory_fails_with_the_reason(pool):
    made = pool(1, "limited")
    made.submit(1, job("eat"))
    made.submit(2, job("fine"))
    answers = dict(made.wait() for _ in range(2))
    assert answers[1].failure.startswith("the worker ran out of memory")
    assert answers[2].failure is None


def test_trainings_tell_their_epochs_and_what_they_failed_of(pool, tmp_path):
    made, told = pool(2), []
    for number, name in enumerate(("fine", "fail")):
        made.submit(number, training(name), lambda epoch, loss, name=name: told.append((name, epoch, loss)))
    assert dict(made.trained() for _ in range(2)) == {0: Trained(), 1: Trained("the loss is lost")}
    assert sorted(told) == [(name, epoch, loss) for name in ("fail", "fine") for epoch, loss in ((0.5, 2.0), (1, 1.5))]
    assert sorted(begun(tmp_path)) == ["fail with 3 threads", "fine with 3 threads"]


@pytest.mark.parametrize(("what", "how"), [("die", "by signal 9"), ("raise", "with exit code 1: ValueError: a bug")])
def test_a_training_whose_worker_dies_is_not_tried_again(pool, tmp_path, what, how):
    made = pool()
    made.submit(1, training(what))
    assert made.trained() == (1, Trained(how, died=True))
    made.submit(2, training("fine"))
    assert made.trained() == (2, Trained())
    assert len(begun(tmp_path)) == 2


def test_a_full_disk_is_no_finalists_failure(pool):
    made = pool()
    made.submit(1, training("full"))
    with pytest.raises(StateError, match="the disk is full"):
        made.trained()


def test_workers_that_are_killed_at_any_moment_lose_nothing(pool, tmp_path):
    """Twenty kills, wherever they hit: starting, waiting or evaluating."""
    made = pool(2)
    kills = 0
    for number in range(60):
        made.submit(number, job(f"n{number}", number))
    answers = {}
    for turn in range(60):
        number, evaluation = made.wait()
        assert number not in answers
        answers[number] = evaluation
        if turn % 3 == 0 and kills < 20:
            victims = [w.process for w in made._pool if w.ready]
            if victims:
                victims[turn % len(victims)].kill()
                kills += 1
    assert kills >= 15
    assert sorted(answers) == list(range(60))
    assert all(e.failure is None and e.measurements["size"].value == n for n, e in answers.items())


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("refuse", "A worker cannot prepare what the driver could: it cannot be traced here"),
        ("stillborn", r"(?s)Workers end before they are ready, the last one with exit code 3.*no such library"),
    ],
)
def test_workers_that_cannot_start_end_the_search(pool, argument, message):
    made = pool(1, argument)
    made.submit(1, job("fine"))
    with pytest.raises(StateError, match=message) as ended:
        made.wait()
    assert "\n" not in str(ended.value), "the traceback stays in the worker's log"


def test_workers_that_hang_while_they_prepare_end_the_search(pool):
    made = pool(1, "asleep", preparation=0.5)
    made.submit(1, job("fine"))
    with pytest.raises(StateError, match=r"hang before they are ready: the last one .* still not ready after 0\.5 s"):
        made.wait()


def test_a_worker_that_hung_once_while_it_prepared_is_replaced(pool, tmp_path):
    made = pool(1, "asleep once", preparation=0.1)
    made._preparation = 120.0  # for those that come after it
    until(lambda: (tmp_path / "slept").exists())
    made.submit(1, job("fine", 7))
    assert made.wait()[1].measurements["size"].value == 7


def test_no_worker_outlives_a_driver_that_is_killed(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    driver = f"""
        import sys
        from pathlib import Path
        from secateur.execution import Pool
        from secateur.records import Candidate, Edit, Job, Plan
        pool = Pool([sys.executable, {str(script)!r}, {str(tmp_path)!r}], 2, Path({str(tmp_path)!r}) / "logs")
        for number, what in enumerate(["hang", "hang"]):
            pool.submit(number, Job(Candidate({{what: (Edit("channels", 1, "l2"),)}}), Plan()))
        pool.wait()
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(driver)])
    until(lambda: (tmp_path / "begun").exists() and len(begun(tmp_path)) == 2)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=LIMIT)
    assert alive == []


def test_a_worker_whose_driver_died_while_it_loaded_torch_ends_before_it_prepares(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))
    gone = subprocess.Popen(["true"])
    gone.wait()
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "refuse"], env={**os.environ, DRIVER: str(gone.pid)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")


def test_the_inline_executor_does_jobs_in_order():
    made = Inline(lambda given: Evaluation(given.candidate, "k", {}))
    made.submit(4, job("a"))
    made.submit(5, job("b"))
    assert [made.wait()[0], made.wait()[0]] == [4, 5]
