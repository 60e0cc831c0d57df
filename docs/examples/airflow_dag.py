"""A DAG of Airflow 3 for the folder `dags/`. secateur stays in the project's own environment, which Airflow never imports."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG(
    "secateur_retrain",
    schedule="30 1 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # only the newest weights are there
    max_active_runs=1,
):
    BashOperator(
        task_id="retrain",
        cwd="/srv/compression",
        bash_command=".venv/bin/secateur retrain nightly --run-key {{ ds }} --deadline 2h",
        skip_on_exit_code=3,  # nothing better: what depends on a new model is skipped
        retries=3,  # for 75; a night that is over says again how it ended
        retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=3),  # behind --deadline
        output_processor=json.loads,  # the last line is the task's XCom
    )
