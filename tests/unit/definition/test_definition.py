from __future__ import annotations

import pytest

from conftest import REPOSITORY
from secateur.definition import Override, RecoverDefinition, load_pipeline
from secateur.errors import DefinitionError

PIPELINE = """\
name: mine
workload: my_model.py:workload
search_space: channels
evaluator: {objectives: {accuracy: maximize, size: minimize}}
search:
  trials: 20
"""
SPACE = """\
# one line of comment
groups:
  - match: "*"
    methods: [l1]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    for folder in ("pipelines", "search_spaces", "evaluators"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pipelines" / "mine.yaml").write_text(PIPELINE)
    (tmp_path / "search_spaces" / "channels.yaml").write_text(SPACE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rewrite(project, old, new, file="pipelines/mine.yaml"):
    path = project / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def message(*overrides):
    with pytest.raises(DefinitionError) as caught:
        load_pipeline("mine", [Override.parse(text) for text in overrides])
    return str(caught.value)


def test_a_pipeline_by_name_and_by_path(project):
    by_name, root = load_pipeline("mine")
    by_path, _ = load_pipeline(str(project / "pipelines" / "mine.yaml"))
    assert by_name.as_written() == by_path.as_written()
    assert root == project
    assert by_name.search.trials == 20
    assert by_name.search.sampler == "tpe"
    assert by_name.search_space.groups[0].removed == (0.0, 0.8)


@pytest.mark.parametrize("name", sorted(p.stem for p in (REPOSITORY / "pipelines").glob("*.yaml")))
def test_shipped_pipelines_are_valid(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("CIFAR10_DATA", "CIFAR10_WEIGHTS", "SENTENCES_TRAIN", "SENTENCES_DEV", "SENTENCES_TEST"):
        monkeypatch.setenv(variable, "/data")
    definition, root = load_pipeline(name)
    assert root == tmp_path
    assert definition.name


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  trials: 20", "  trails: 20", "pipelines/mine.yaml:6: unknown key 'trails'. Did you mean 'trials'? Allowed here: baselines, engine,"),
        ("  trials: 20", "  trials: 0", "pipelines/mine.yaml:6: 'search.trials' is 0; it must be greater than or equal to 1."),
        ("  trials: 20", "  trials: many", "pipelines/mine.yaml:6: 'search.trials' is 'many'; it must be a valid integer"),
        ("name: mine\n", "", "pipelines/mine.yaml:1: 'name' is missing."),
        ("name: mine", "name: my model", "pipelines/mine.yaml:1: 'name' is 'my model'; letters, digits"),
        ("size: minimize", "size: least", "pipelines/mine.yaml:4: 'objectives.size' is 'least'; allowed: 'maximize' or 'minimize'."),
        ("search_space: channels", "search_space: chanels", "pipelines/mine.yaml:3: there is no 'chanels' in search_spaces/. Did you mean 'channels'?"),
        ("search_space: channels", "search_space: a/b.yaml", "pipelines/mine.yaml:3: there is no file 'a/b.yaml'"),
        ("  trials: 20", "  trials: [20", "pipelines/mine.yaml:7: not valid YAML"),
        ("  trials: 20", "  trials: 20\n  trials: 30", "pipelines/mine.yaml:7: not valid YAML: found duplicate key"),
        ("  trials: 20", "  trials: 20\nrecover: {distill: {weight: 2}}", "pipelines/mine.yaml:7: 'recover.distill.weight' is 2; it must be less than or equal to 1."),
        ("  trials: 20", "  trials: 20\nrecover: {epochs: 2, minutes: 5}", "pipelines/mine.yaml:7: recover: one of epochs, training_steps, minutes says how long"),
        ("  trials: 20", "  trials: 20\nrecover: {epochs: null}", "here none would"),
        ("  trials: 20", "  trials: 20\nrecover: {optimizer: adam}", "pipelines/mine.yaml:7: 'recover.optimizer' is 'adam'; allowed: 'sgd' or 'adamw'."),
        ("  trials: 20", "  trials: 20\nquantize: [int8]", "pipelines/mine.yaml:7: quantize: allowed are [none] and [none, int8]: an int8 model is made of"),
        ("  trials: 20", "  trials: 20\nquantize: [none, int4]", "pipelines/mine.yaml:7: 'quantize.1' is 'int4'; allowed: 'none' or 'int8'."),
        ("  trials: 20", "  trials: 20\nregister: {nam: x}", "pipelines/mine.yaml:7: unknown key 'nam'. Did you mean 'name'?"),
        ("  trials: 20", "  trials: 20\nregister: {name: x, tracking_uri: 'https://me:secret@host/'}", "pipelines/mine.yaml:7: 'register.tracking_uri' carries credentials in a URL"),
    ],
)  # fmt: skip
def test_errors_in_the_pipeline_name_file_and_line(project, old, new, expected):
    rewrite(project, old, new)
    assert expected in message()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("methods: [l1]", "methods: []", "search_spaces/channels.yaml:4: 'groups.0.methods' is []; it list should have at least 1 item"),
        ("methods: [l1]", "method: [l1]", "search_spaces/channels.yaml:4: unknown key 'method'. Did you mean 'methods'?"),
        ("methods: [l1]", "methods: [l1]\n    removed: [0.9, 0.2]", "search_spaces/channels.yaml:5: groups.0.removed: the lowest fraction (0.9) must be below the highest (0.2)."),
        ("methods: [l1]", "methods: [l1]\n    removed: [0.2, 1.0]", "search_spaces/channels.yaml:5: 'groups.0.removed.1' is 1.0; it must be less than 1."),
        ("groups:", "group:", "search_spaces/channels.yaml:2: unknown key 'group'. Did you mean 'groups'?"),
    ],
)  # fmt: skip
def test_errors_in_a_referenced_file_name_that_file(project, old, new, expected):
    rewrite(project, old, new, "search_spaces/channels.yaml")
    assert expected in message()


def test_errors_in_an_inline_part_name_its_line(project):
    rewrite(project, "objectives: {", "objectivs: {")
    assert "pipelines/mine.yaml:4: unknown key 'objectivs'. Did you mean 'objectives'?" in message()


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("{max_drip: 1}", "unknown key 'max_drip'. Did you mean 'max_drop'?"),
        (
            "{before_recovery: 0.5}",
            "a constraint needs a goal: one of max_drop, at_least, at_most, speedup_at_least, smaller_by, max_rise",
        ),
        ("{smaller_by: 1.5}", "'constraints.accuracy.smaller_by' is 1.5; it must be less than 1"),
    ],
)
def test_constraints_are_typed_goals(project, constraint, expected):
    rewrite(project, "size: minimize}}", "size: minimize}, constraints: {accuracy: " + constraint + "}}")
    assert expected in message()


REMOTE = "host: board, user: me, key_file: key, python: /opt/venv/bin/python, project: /srv/project"


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ("nni: {port: 8080}", "'nni' is only for NNI's experiments: add 'engine: nni', or leave it out"),
        ("engine: nni, nni: {assessor: curvefitting}", "is 'curvefitting'; allowed: 'medianstop'"),
        (
            "engine: nni, nni: {assessor: medianstop}, fidelities: {first_images: 0}",
            "set fidelities.first_images above 0",
        ),
        ("engine: nni, nni: {port: 70000}", "'search.nni.port' is 70000; it must be less than or equal to 65535"),
        ("engine: nni, nni: {remote: {" + REMOTE + ", password: x}}", "unknown key 'password'"),
        ("engine: nni, nni: {remote: {" + REMOTE.replace("board", "'me:secret@board'") + "}}", "letters, digits"),
        (
            "engine: nni, nni: {remote: {" + REMOTE.replace("/srv", "srv") + "}}",
            "'srv/project' must be an absolute path",
        ),
    ],
)
def test_settings_of_nnis_experiments(project, search, expected):
    rewrite(project, "search:\n  trials: 20", "search: {trials: 20, " + search + "}")
    assert expected in message()


def test_a_definition_with_a_remote_host_can_be_written_down_and_read_again(project):
    rewrite(
        project, "search:\n  trials: 20", "search: {engine: nni, sampler: nni_tpe, nni: {remote: {" + REMOTE + "}}}"
    )
    definition, _ = load_pipeline("mine")
    again = type(definition).model_validate(definition.as_written())
    assert again.as_written() == definition.as_written()


def test_training_that_the_search_asks_for_needs_a_recipe(project):
    assert "needs 'recover'" in message("recover=null", "search.baselines.small_dense=true")


def test_overrides_win_and_are_named_in_errors(project):
    definition, _ = load_pipeline("mine", [Override.parse("search.trials=7"), Override.parse("recover=null")])
    assert definition.search.trials == 7
    assert definition.recover is None
    assert (
        message("search.trials=none")
        == "--set search.trials=none: 'search.trials' is 'none'; it must be a valid integer, unable to parse string as an integer."
    )
    assert "--set search.trials" in message("search.trials")
    assert "single value" in message("name.inner=1")
    assert "0 … 0" in message("search_space.groups.4.match=x")


def test_an_override_reaches_into_a_referenced_file(project):
    definition, _ = load_pipeline("mine", [Override.parse("search_space.groups.0.at_least=4")])
    assert definition.search_space.groups[0].at_least == 4
    assert definition.search_space.groups[0].methods == ["l1"]
    rewrite(project, "methods: [l1]", "methods: []", "search_spaces/channels.yaml")
    assert "search_spaces/channels.yaml:4" in message("search_space.groups.0.at_least=4")


def test_workload_options_come_from_the_environment_and_stay_out_of_what_is_logged(project, monkeypatch):
    rewrite(
        project,
        "workload: my_model.py:workload",
        "workload: {factory: my_model.py:workload, token: '${MY_TOKEN}', size: '${SIZE:-3}'}",
    )
    assert "pipelines/mine.yaml:2: the environment variable MY_TOKEN is not set" in message()
    monkeypatch.setenv("MY_TOKEN", "secret")
    definition, _ = load_pipeline("mine")
    assert definition.workload.options == {"token": "secret", "size": "3"}
    assert "secret" not in str(definition.as_written())
    assert definition.as_written()["workload"]["token"] == "${MY_TOKEN}"


def test_later_stages_can_point_at_a_line(project):
    definition, _ = load_pipeline("mine")
    assert definition.search_space.groups[0].where("methods", 0) == "search_spaces/channels.yaml:4"
    assert definition.search.where("trials") == "pipelines/mine.yaml:6"
    assert definition.search.where("sampler") == "pipelines/mine.yaml:5", (
        "a default has no line: the nearest parent has"
    )


def test_a_definition_that_is_written_out_reads_back_the_same(project, tmp_path):
    from ruamel.yaml import YAML

    definition, _ = load_pipeline("mine")
    with (tmp_path / "again.yaml").open("w") as stream:
        YAML().dump(definition.as_written(), stream)
    again, _ = load_pipeline(str(tmp_path / "again.yaml"))
    assert again.as_written() == definition.as_written()


@pytest.mark.parametrize("other", ["steps: 2", "rewind: true"])
def test_masks_are_chosen_in_training_or_between_steps(project, other):
    rewrite(project, "search:\n  trials: 20", "recover: {masks: gradual, " + other + "}\nsearch:\n  trials: 20")
    assert "'steps' and 'rewind' are another way. Leave one of the two out" in message()


def test_defaults_of_a_training_follow_from_its_other_keys():
    assert (RecoverDefinition().epochs, RecoverDefinition().learning_rate) == (3, 0.02)
    adamw = RecoverDefinition(optimizer="adamw", training_steps=7)
    assert (adamw.epochs, adamw.training_steps, adamw.learning_rate, adamw.weight_decay) == (None, 7, 0.001, 0.01)
    assert RecoverDefinition(optimizer="adamw", learning_rate=0.5).learning_rate == 0.5
    again = RecoverDefinition(**adamw.model_dump()).model_dump()
    assert again == adamw.model_dump(), "as a resumed run reads it"


def test_lengths_of_a_training_are_multiplied_and_replaced():
    assert RecoverDefinition(minutes=2.0).longer(3).minutes == 6.0
    lasting = RecoverDefinition(minutes=2.0).lasting(epochs=4)
    assert (lasting.epochs, lasting.minutes) == (4, None)


@pytest.mark.parametrize(
    ("length", "passes"), [({}, 6), ({"training_steps": 9}, 6), ({"training_steps": 8}, 4), ({"minutes": 1.0}, None)]
)
def test_passes_over_the_data_are_known_but_for_minutes(length, passes):
    """Of 100 samples, in batches of 8, three a step: four steps a pass."""
    assert RecoverDefinition(batch=8, accumulate=3, steps=2, **length).passes(100) == passes
