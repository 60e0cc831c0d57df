"""What is checked before NNI's turn comes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from secateur.definition import SearchDefinition
from secateur.errors import DefinitionError
from secateur.files import write
from secateur.pipelines.nni_search import NEEDED, _lay_out, nni_search
from secateur.pipelines.state import RunFolder

REMOTE = {
    "host": "board",
    "user": "me",
    "known_hosts": "known",
    "python": "/opt/venv/bin/python",
    "project": "/srv/project",
}


@pytest.mark.parametrize(
    ("key", "words"), [("nowhere", "there is no file .*nowhere"), ("key", "(?s)known has no key of board.*ssh-keyscan")]
)
def test_a_remote_host_that_cannot_be_used_is_said_before_the_search(key, words, tmp_path):
    for name in ("key", "known"):
        (tmp_path / name).touch()
    search = SearchDefinition.model_validate(
        {"engine": "nni", "sampler": "nni_tpe", "nni": {"remote": {**REMOTE, "key_file": key}}}
    )
    run = RunFolder(tmp_path / "run", "run", "tiny", "", str(tmp_path), "", "", {})
    prepared = SimpleNamespace(definition=SimpleNamespace(search=search))
    with pytest.raises(DefinitionError, match=words):
        nni_search(prepared, run, print)


def test_a_trial_reads_the_groups_that_the_run_has_proven(tmp_path):
    """Without them each trial would prove them anew."""
    run = RunFolder(tmp_path / "run", "run", "tiny", "", str(tmp_path), "", "", {})
    assert str(run.groups.relative_to(run.path)) in NEEDED


def test_a_trial_gets_the_network_that_is_cut(tmp_path):
    run, folder = RunFolder(tmp_path / "run", "run", "tiny", "", str(tmp_path), "", "", {}), tmp_path / "trial"
    for name in (*NEEDED, "run.json", run.sparse.relative_to(run.path)):
        write(run.path / name, b"{}")
    _lay_out(run, folder, "/srv/project")
    assert RunFolder(folder, "run", "tiny", "", "/srv/project", "", "", {}).sparse.is_file()
