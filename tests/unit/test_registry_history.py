"""Aliases that move, and the history of it, in MLflow's own embedded registry."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from secateur.cli.main import app
from secateur.errors import DefinitionError
from secateur.registry import open_embedded
from secateur.registry.history import STATUS, moves, promote, registry, rollback, version_of
from secateur.registry.tracking import Tracking


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """A registry with an empty database."""
    state = tmp_path_factory.mktemp("project") / "mlruns"
    state.mkdir()
    open_embedded(state)
    return state


@pytest.fixture
def server(state, request):
    """It, with a model of the test's own name in versions 1, 2 and 3."""
    with registry(state, None) as server:
        server.registered_model(request.node.name, "")
        for _ in range(3):
            server._client.create_model_version(request.node.name, "/nowhere")
        yield server


def holder(server, name, alias="champion"):
    return version_of(server, name, f"@{alias}").number


def test_a_rollback_goes_back_step_by_step_and_all_of_it_is_written_down(server, request):
    name = request.node.name
    for number in "123":
        promote(server, name, number, why=f"number {number}")
    assert holder(server, name) == "3"
    rollback(server, name, why="it was slow")
    assert holder(server, name) == "2"
    rollback(server, name)
    assert holder(server, name) == "1"
    with pytest.raises(DefinitionError, match=r"No version .* before version 1"):
        rollback(server, name)
    written = moves(server, name)
    assert [(m.action, m.before, m.version, m.state) for m in written] == [
        ("promote", None, "1", "done"),
        ("promote", "1", "2", "done"),
        ("promote", "2", "3", "done"),
        ("rollback", "3", "2", "done"),
        ("rollback", "2", "1", "done"),
    ]
    assert written[3].why == "it was slow"
    assert all("@" in m.who and m.when.endswith("+00:00") for m in written)


def test_after_a_rollback_another_version_is_promoted_and_taken_back(server, request):
    name = request.node.name
    promote(server, name, "1")
    promote(server, name, "2")
    rollback(server, name)
    promote(server, name, "3")
    rollback(server, name)
    assert holder(server, name) == "1"


def test_rollbacks_do_not_go_in_circles(server, request):
    """1, 2, 1, 2, and each of them undone."""
    name = request.node.name
    for number in "1212":
        promote(server, name, number)
    for expected in "121":
        rollback(server, name)
        assert holder(server, name) == expected
    with pytest.raises(DefinitionError, match="before version 1"):
        rollback(server, name)


def test_an_alias_that_was_moved_by_hand_in_between_is_given_back_to_who_had_it_then(server, request):
    name = request.node.name
    promote(server, name, "1")
    server.point(name, "champion", "3")
    with pytest.raises(DefinitionError, match="before version 3"):
        rollback(server, name)
    promote(server, name, "2")
    rollback(server, name)
    assert holder(server, name) == "3"


def test_a_version_that_failed_the_gate_is_promoted_only_by_force(server, request):
    name = request.node.name
    server._client.set_model_version_tag(name, "2", STATUS, "failed")
    with pytest.raises(DefinitionError, match="has failed the gate"):
        promote(server, name, "2")
    assert moves(server, name) == []
    promote(server, name, "2", force=True)
    assert holder(server, name) == "2"


def test_what_is_not_there_is_named_with_what_is(server, request):
    name = request.node.name
    with pytest.raises(DefinitionError, match=rf"no registered model '{name[:-1]}'.*Did you mean"):
        promote(server, name[:-1], "1")
    for number in ("4", "@nobody", "abc"):
        with pytest.raises(DefinitionError, match=f"has no version {number}"):
            promote(server, name, number)
    promote(server, name, "1")
    with pytest.raises(DefinitionError, match="is @champion already"):
        promote(server, name, "1")


class Dying(Tracking):
    """A connection that breaks at a call."""

    def __init__(self, server, dies_at):
        self.__dict__ = dict(server.__dict__)
        self.dies_at = dies_at

    def point(self, name, alias, number):
        if self.dies_at == "before the alias":
            raise KeyboardInterrupt
        super().point(name, alias, number)
        if self.dies_at == "after the alias":
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("dies_at", "found", "back"), [("before the alias", "abandoned", "1"), ("after the alias", "done", "2")]
)
def test_a_move_that_was_cut_off_is_settled_by_the_next(server, request, dies_at, found, back):
    name = request.node.name
    promote(server, name, "1")
    with pytest.raises(KeyboardInterrupt):
        promote(Dying(server, dies_at), name, "2")
    assert moves(server, name)[-1].state == "begun"
    promote(server, name, "3")
    assert [m.state for m in moves(server, name)] == ["done", found, "done"]
    rollback(server, name)
    assert holder(server, name) == back


@pytest.mark.parametrize(("dies_at", "back"), [("before the alias", "1"), ("after the alias", "2")])
def test_a_rollback_right_after_a_move_that_was_cut_off_knows_where_the_alias_is(server, request, dies_at, back):
    name = request.node.name
    promote(server, name, "1")
    promote(server, name, "2")
    with pytest.raises(KeyboardInterrupt):
        promote(Dying(server, dies_at), name, "3")
    rollback(server, name)
    assert holder(server, name) == back


def test_the_commands(server, state, request, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    name = request.node.name
    server.point(name, "candidate", "2")

    def say(*words):
        result = CliRunner().invoke(app, [*words, "--project", str(state.parent)])
        assert result.exception is None, result.output
        return result.output

    promote(server, name, "1")
    assert say("promote", name, "--why", "better") == f"@champion of {name} is now version 2, which was version 1.\n"
    assert say("rollback", name) == f"@champion of {name} is now version 1, which was version 2.\n"
    assert [m["why"] for m in json.loads(say("history", name, "--json"))] == ["", "better", ""]
    assert "better" in say("history", name)


def test_a_project_that_has_registered_nothing_says_so(tmp_path):
    with pytest.raises(DefinitionError, match="Nothing has been registered"), registry(tmp_path, None):
        pass
    assert not list(tmp_path.iterdir()), "and gets no database"
