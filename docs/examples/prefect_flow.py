"""A flow of Prefect 3: `python prefect_flow.py` serves it every night.

Prefect's requirements and secateur's exclude each other, so each has an environment of its own, and the flow calls the command.
"""

from __future__ import annotations

import json
import subprocess
from typing import Any

from prefect import flow, task
from prefect.runtime import flow_run

NOTHING_BETTER = 3
RETRY_LATER = 75


class RetryLaterError(Exception):
    """The command ended with exit code 75: called again with the same run key, it goes on."""


def _later(_task: Any, _run: Any, state: Any) -> bool:
    return isinstance(state.result(raise_on_failure=False), RetryLaterError)


@task(retries=3, retry_delay_seconds=600, retry_condition_fn=_later)
def retrain(project: str, pipeline: str, run_key: str) -> dict[str, Any]:
    """One call. Returns the last line of its output. Raises RetryLaterError, and RuntimeError where a person must look."""
    command = [".venv/bin/secateur", "retrain", pipeline, "--run-key", run_key, "--deadline", "2h"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 # no shell
        try:
            output, _ = process.communicate()
        except BaseException:  # the flow is cancelled
            process.terminate()  # it stops within seconds, and the next call goes on
            raise
    if process.returncode == RETRY_LATER:
        raise RetryLaterError(output)
    if process.returncode not in (0, NOTHING_BETTER):
        raise RuntimeError(f"exit code {process.returncode}: {output}")
    return dict(json.loads(output.splitlines()[-1]))


@flow
def secateur_retrain(project: str = "/srv/compression", pipeline: str = "nightly") -> dict[str, Any]:
    """One night. Its run key is the day that it was scheduled for. `status` says whether there is a new model."""
    return retrain(project, pipeline, f"{flow_run.scheduled_start_time:%Y-%m-%d}")


if __name__ == "__main__":
    secateur_retrain.serve("nightly", cron="30 1 * * *", limit=1)
