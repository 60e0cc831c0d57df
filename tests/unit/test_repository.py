"""What is written down about the repository, held against the repository."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

import secateur
from conftest import REPOSITORY
from secateur.pipelines.catalogue import schemas


def read(path):
    return (REPOSITORY / path).read_text()


def tracked(pattern):
    return [p for p in REPOSITORY.glob(pattern) if ".venv" not in p.parts]


def test_the_schemas_in_docs_are_those_of_the_code():
    for name, schema in schemas().items():
        assert json.loads(read(f"docs/schemas/{name}.json")) == json.loads(json.dumps(schema)), (
            "run: secateur schema --write docs/schemas"
        )


@pytest.mark.parametrize("kind", ["pipelines", "search_spaces", "evaluators"])
def test_shipped_definitions_carry_the_hint_for_editors(kind):
    for file in tracked(f"{kind}/*.yaml"):
        first = file.read_text().splitlines()[0]
        schema = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
        assert schema, file
        assert (file.parent / schema.group(1)).resolve().is_file()


def test_dependencies_have_honest_ranges_and_pinned_versions():
    project = tomllib.loads(read("pyproject.toml"))
    named = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    lines = [line for line in read("constraints.txt").splitlines() if "==" in line and not line.startswith("#")]
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    for requirement in named:
        name = re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", requirement).group(0)).lower()
        assert ">=" in requirement
        assert name in pinned, f"{name} is not in constraints.txt"


def test_the_changelog_knows_this_version():
    assert secateur.__version__ in read("CHANGELOG.md")


def test_nothing_names_a_path_of_one_machine_or_a_registry_host():
    for file in [
        *tracked("**/*.py"),
        *tracked("**/*.md"),
        *tracked("**/*.yaml"),
        *tracked("docker/*"),
        REPOSITORY / "Makefile",
    ]:
        if file == REPOSITORY / "tests/unit/test_repository.py" or not file.is_file():
            continue
        text = file.read_text()
        assert not re.search(r"(?<![\w.])/(root|home/\w+|opt/wheels)/", text), file
        assert "pypi.org" not in text, file


def test_compose_names_paths_commands_and_ports_that_exist():
    compose = YAML(typ="safe").load(read("docker/compose.yaml"))
    assert set(compose["services"]) == {"worker", "mlflow", "dashboard"}
    for name, service in compose["services"].items():
        build = service.get("build")
        if build:
            context = (REPOSITORY / "docker" / build["context"]).resolve()
            assert context == REPOSITORY
            assert (context / build["dockerfile"]).is_file()
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} is open to the network"
        assert "healthcheck" in service, name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (REPOSITORY / "docker" / source).resolve().exists(), volume
        installed = shutil.which(service["command"][0], path=str(Path(sys.executable).parent))
        assert installed, f"{name} starts {service['command'][0]}, which is not installed"


def test_the_dockerfile_copies_what_exists_and_does_not_run_as_root():
    text = read("docker/Dockerfile")
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, flags=re.M):
        *sources, _ = [part for part in line.split() if not part.startswith("--")]
        for source in sources:
            assert (REPOSITORY / source).exists(), source
    assert len(re.findall(r"^FROM ", text, flags=re.M)) == 2
    users = re.findall(r"^USER (\S+)$", text, flags=re.M)
    assert users
    assert users[-1] not in ("root", "0")


def test_the_readme_names_commands_that_exist():
    makefile = read("Makefile")
    for target in set(re.findall(r"`make (\w+)`", read("README.md") + read("CONTRIBUTING.md"))):
        assert re.search(rf"^{target}:", makefile, flags=re.M), target
    from secateur.cli.main import app

    commands = {c.name or c.callback.__name__.rstrip("_") for c in app.registered_commands}
    for name in set(
        re.findall(
            r"secateur (\w+)", "\n".join(re.findall(r"```(?:sh|console)\n(.*?)```", read("README.md"), flags=re.S))
        )
    ):
        assert name in commands, name


def test_links_between_the_documents_lead_somewhere():
    for file in [
        REPOSITORY / "README.md",
        REPOSITORY / "CONTRIBUTING.md",
        *tracked("docs/*.md"),
        *tracked("benchmarks/*.md"),
    ]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", file.read_text()):
            assert (file.parent / target).exists(), f"{file.name} → {target}"


def test_test_files_outside_packages_have_names_of_their_own():
    """pytest imports them by their bare names: of two alike it collects one, and only where both are asked for does it say so."""
    names = [p.name for p in tracked("tests/**/test_*.py") if not (p.parent / "__init__.py").exists()]
    assert sorted(names) == sorted(set(names))
