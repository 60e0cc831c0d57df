"""The examples for schedulers in docs/examples, with a stand-in for the command that keeps its words and ends as it is told."""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import runpy
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace

import pytest
import typer.main
from ruamel.yaml import YAML

from conftest import REPOSITORY
from secateur.cli.commands.retraining import STATUS, seconds_of
from secateur.cli.failures import BUG
from secateur.cli.main import app
from secateur.cli.options import INTERRUPTED
from secateur.errors import DefinitionError, GateFailed, NothingBetter, StateError
from secateur.pipelines.nights import open_night

EXAMPLES = REPOSITORY / "docs" / "examples"
PROJECT = "/srv/compression"
CODES = {"nothing": NothingBetter.exit_code, "gate": GateFailed.exit_code, "later": StateError.exit_code}
STAND_IN = """#!/bin/sh
printf '%s\\n' "$@" >words
printf '{"exit_code": %s}\\n' "${ENDS:-0}" | tee result.json
exit "${ENDS:-0}"
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder that looks like a project with its own environment."""
    command = tmp_path / ".venv" / "bin" / "secateur"
    command.parent.mkdir(parents=True)
    command.write_text(STAND_IN)
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell(line, project, **variables):
    return subprocess.run(
        ["bash", "-c", line.replace(PROJECT, str(project))],
        cwd=project,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def parsed(words, tmp_path):
    """The options of a command line, as the command itself reads them; and its deadline in seconds."""
    group = typer.main.get_command(app)
    context = group.make_context("secateur", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    options = command.make_context(name, rest, parent=context).params
    assert (name, options["pipeline"]) == ("retrain", "nightly")
    assert open_night(tmp_path, "nightly", options["run_key"]).key == options["run_key"]
    return options, seconds_of(options["deadline"])


def called(project):
    return parsed((project / "words").read_text().splitlines(), project)


def unit(name):
    read = configparser.ConfigParser(interpolation=None, strict=False)
    read.optionxform = str
    read.read(EXAMPLES / "systemd" / name)
    return read


def yaml(name):
    return [*YAML(typ="safe").load_all((EXAMPLES / name).read_text())]


def today():
    return {f"{datetime.now() - timedelta(minutes=ago):%Y-%m-%d}" for ago in (0, 5)}  # as `date` says


def test_a_unit_of_systemd(project):
    service = unit("secateur-retrain.service")["Service"]
    line = service["ExecStart"].replace("$$", "$").replace("%%", "%")
    assert shell(line, project).returncode == 0
    options, deadline = called(project)
    assert options["run_key"] in today()
    assert deadline < seconds_of(service["RuntimeMaxSec"])
    assert {int(code) for code in service["SuccessExitStatus"].split()} == {CODES["nothing"], CODES["gate"]}
    assert int(service["RestartForceExitStatus"]) == CODES["later"]
    limits = unit("secateur-retrain.service")["Unit"]
    tries = int(limits["StartLimitBurst"]) * (deadline + 600)
    assert service["RestartSec"] == "10min"
    assert tries < seconds_of(limits["StartLimitIntervalSec"]), "or the limit is never reached"
    assert unit("secateur-retrain.timer")["Timer"]["Persistent"] == "true"


def test_a_line_of_a_crontab(project):
    lines = [line for line in (EXAMPLES / "crontab").read_text().splitlines() if not line.startswith(("#", "MAILTO="))]
    (line,) = lines
    minute, hours, *days, command = line.split(maxsplit=5)
    assert minute.isdigit()
    assert days == ["*"] * 3
    assert not re.search(r"(?<!\\)%", command), "cron ends a command at a bare %"
    first, second = map(int, hours.split(","))
    done = shell(command.replace("\\%", "%"), project, ENDS="3")
    assert (done.returncode, done.stdout) == (3, "")
    assert json.loads((project / "nightly.jsonl").read_text()) == {"exit_code": 3}
    options, deadline = called(project)
    assert options["run_key"] in today()
    assert deadline < (second - first) * 3600


def test_a_cron_job_of_kubernetes(tmp_path):
    claim, job = yaml("kubernetes_cronjob.yaml")
    spec = job["spec"]["jobTemplate"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    variables = {v["name"]: v for v in container["env"]}
    assert (
        variables["RUN_KEY"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
    )
    name, *words = container["command"]
    assert name == "secateur"
    options, deadline = parsed([w.replace("$(RUN_KEY)", "secateur-retrain-29384756") for w in words], tmp_path)
    assert options["run_key"] == "secateur-retrain-29384756"
    assert spec["activeDeadlineSeconds"] > (spec["backoffLimit"] + 1) * deadline
    ignored, failed = spec["podFailurePolicy"]["rules"]
    assert (ignored["action"], failed["action"]) == ("Ignore", "FailJob")
    over = {DefinitionError.exit_code, CODES["nothing"], CODES["gate"], BUG}
    assert set(failed["onExitCodes"]["values"]) == over
    assert failed["onExitCodes"]["containerName"] == container["name"]
    assert pod["restartPolicy"] == "Never", "a policy by exit codes asks for it"
    (volume,) = pod["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (mount,) = container["volumeMounts"]
    dockerfile = (REPOSITORY / "docker" / "Dockerfile").read_text()
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/project/mlruns")
    assert f"--uid {pod['securityContext']['runAsUser']} " in dockerfile
    assert "WORKDIR /project\n" in dockerfile


def test_the_cron_job_against_the_schemas_of_kubernetes():
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate").validate
    for document in yaml("kubernetes_cronjob.yaml"):
        validate(document, "1.31", strict=True)


@pytest.mark.parametrize("code", STATUS.keys() | {0})
def test_a_workflow_of_github(project, code):
    workflow = yaml("github_actions.yaml")[0]
    job = workflow["jobs"]["retrain"]
    step = next(s for s in job["steps"] if s.get("name") == "Retrain")
    (project / ".venv" / "bin" / "jq").symlink_to("/bin/cat")
    script = step["run"].replace("jq . ", "jq ")
    done = shell(
        f"set -e\n{script}", project, ENDS=str(code), RUN_KEY="19", GITHUB_STEP_SUMMARY=str(project / "summary")
    )
    options, deadline = called(project)
    assert options["run_key"] == "19"
    assert deadline < job["timeout-minutes"] * 60
    assert done.returncode == (0 if code in (CODES["nothing"], CODES["gate"]) else code), done.stderr
    assert ("::notice" in done.stdout) == (code in (CODES["nothing"], CODES["gate"]))
    assert ("::error title=Retry later" in done.stdout) == (code == CODES["later"])
    assert f'{{"exit_code": {code}}}' in (project / "summary").read_text()
    restored, saved = (s["with"] for s in job["steps"] if s.get("uses", "").startswith("actions/cache/"))
    assert (restored["path"], restored["key"]) == (saved["path"], saved["key"]) == ("mlruns", saved["key"])
    assert saved["key"].startswith(restored["restore-keys"])


def test_a_dag_of_airflow(project, monkeypatch):
    made = {}
    bash = SimpleNamespace(BashOperator=lambda **settings: made.update(settings))
    dag = SimpleNamespace(DAG=lambda *_, **settings: made.update(dag=settings) or contextlib.nullcontext())
    for name, module in {"airflow.providers.standard.operators.bash": bash, "airflow.sdk": dag}.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("airflow", "airflow.providers", "airflow.providers.standard", "airflow.providers.standard.operators"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    runpy.run_path(str(EXAMPLES / "airflow_dag.py"))
    done = shell(made["bash_command"].replace("{{ ds }}", "2026-03-01"), project)
    assert made["output_processor"](done.stdout.splitlines()[-1]) == {"exit_code": 0}
    options, deadline = called(project)
    assert options["run_key"] == "2026-03-01"
    assert timedelta(seconds=deadline) < made["execution_timeout"]
    assert made["skip_on_exit_code"] == CODES["nothing"]
    assert made["dag"]["max_active_runs"] == 1


@pytest.fixture
def flow(monkeypatch):
    """The module of the flow, and what its task was declared with."""
    declared = {}
    prefect = ModuleType("prefect")
    prefect.flow = lambda function: function
    prefect.task = lambda **settings: declared.update(settings) or (lambda function: function)
    runtime = ModuleType("prefect.runtime")
    runtime.flow_run = SimpleNamespace(scheduled_start_time=datetime(2026, 3, 1, 1, 30, tzinfo=UTC))
    monkeypatch.setitem(sys.modules, "prefect", prefect)
    monkeypatch.setitem(sys.modules, "prefect.runtime", runtime)
    return runpy.run_path(str(EXAMPLES / "prefect_flow.py")), declared


@pytest.mark.parametrize("code", STATUS.keys() | {0})
def test_a_flow_of_prefect(project, flow, monkeypatch, code):
    module, declared = flow
    monkeypatch.setenv("ENDS", str(code))
    if code in (0, CODES["nothing"]):
        assert module["secateur_retrain"](str(project)) == {"exit_code": code}
    else:
        with pytest.raises(Exception, match=f'"exit_code": {code}') as raised:
            module["secateur_retrain"](str(project))
        state = SimpleNamespace(result=lambda **_: raised.value)
        assert declared["retry_condition_fn"](None, None, state) == (code == CODES["later"])
    options, _ = called(project)
    assert options["run_key"] == "2026-03-01"


def test_the_page_names_every_exit_code_and_every_example():
    page = (REPOSITORY / "docs" / "scheduling.md").read_text()
    rows = re.findall(r"^\| (\d+(?:, \d+)*) ", page, flags=re.M)
    assert {int(code) for row in rows for code in row.split(", ")} == STATUS.keys() - {INTERRUPTED} | {0}
    for file in EXAMPLES.rglob("*"):
        if file.is_file() and file.name != "webhook_receiver.py" and "__pycache__" not in file.parts:
            assert f"(examples/{file.relative_to(EXAMPLES)})" in page
