"""Definitions that nobody writes by intent: each is one line with file and line, at once, and never a traceback."""

from __future__ import annotations

import datetime as dt
import os
import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from secateur.definition import Override, load_evaluator, load_pipeline, pipeline_from
from secateur.errors import DefinitionError, WorkloadError

GOOD = """\
name: mine
workload: {factory: my_model.py:workload, options: &o [1, 2]}
search_space: {groups: [{methods: [l1]}]}
evaluator: {objectives: {accuracy: maximize, size: minimize}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("definitions")


def refused(folder, text, *overrides):
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DefinitionError) as caught:
        load_pipeline(str(path), [Override.parse(override) for override in overrides])
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 1000
    return said


def laughs(levels):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + laughs(12), r"mine.yaml:\d+: here the definition passes 10,000 keys and values"),
        (GOOD + laughs(12).replace("[", "{b: ").replace("]", "}").replace(", ", ", c: "), "mine.yaml"),
        (GOOD + "".join(f"key{i}: 1\n" for i in range(800_000)), "mine.yaml: is larger than 1,000,000 bytes"),
        (GOOD + "".join(f"k{i}: 1\n" for i in range(80_000)), r"mine.yaml:\d+: here the definition passes 10,000"),
        (GOOD + "x: " + "[" * 400 + "]" * 400, "mine.yaml:5: lists and mappings are nested more than 40 deep"),
        (GOOD + "x: " + "[" * 5000, "mine.yaml:5: lists and mappings are nested more than 40 deep"),
        (GOOD + "\n".join(" " * i + "a:" for i in range(5, 400)), "nested more than 40 deep|not valid YAML"),
        (GOOD + "x: &x [*x]\n", r"mine.yaml:5: '\*x' is inside the node that it refers to"),
        (GOOD + "x: *nobody\n", "mine.yaml:5: not valid YAML: found undefined alias"),
        (GOOD.replace("[1, 2]", "2026-01-31"), r"mine.yaml:2: 'workload.options' is a date; a definition holds text, .*'2026-01-31'"),
        (GOOD.replace("[1, 2]", "2026-01-31 10:00:00"), "mine.yaml:2: 'workload.options' is a date"),
        (GOOD.replace("[1, 2]", "2026-13-45"), "mine.yaml:1: not valid YAML: month must be in 1..12"),
        (GOOD.replace("&o [1, 2]", "!!binary aGk="), "mine.yaml:2: the tag !!binary is not allowed"),
        (GOOD.replace("&o [1, 2]", "!!set {x, y}"), "mine.yaml:2: the tag !!set is not allowed"),
        (GOOD.replace("&o [1, 2]", "!!python/object/apply:os.system [x]"), "mine.yaml:2: the tag !!python/object/apply:os.system"),
        (GOOD.replace("[1, 2]", ".nan"), "mine.yaml:2: 'workload.options' is nan: a number must be finite"),
        (GOOD.replace("[1, 2]", "[3, 1e400]"), "mine.yaml:2: 'workload.options.1' is inf: a number must be finite"),
        (GOOD.replace("[1, 2]", "9" * 5000), "mine.yaml:1: not valid YAML: Exceeds the limit"),
        (GOOD.replace("[1, 2]", "'\\0'").replace("'", '"'), "mine.yaml:2: 'workload.options' holds a character that is no text"),
        (GOOD.replace("[1, 2]", '"\\uD800"'), "mine.yaml:2: 'workload.options' holds a character that is no text"),
        (GOOD.replace("[1, 2]", "s3://key:geheim@bucket"), "mine.yaml:2: 'workload.options' carries credentials in a URL"),
        (GOOD + "1: x\n", "mine.yaml:1: the key 1 is not text. Put it in quotes: '1'"),
        (GOOD + "? [a, b]\n: x\n", "the key .* is not text"),
        (GOOD + "? {a: b}\n: x\n", "the key .* is not text"),
        (GOOD + "true: x\n", "the key True is not text"),
        (GOOD + "<<: 5\n", "mine.yaml:5: not valid YAML: expected a mapping"),
        (GOOD + "---\nname: other\n", "mine.yaml:5: a second document"),
        (GOOD + "search:\n\ttrials: 3\n", "mine.yaml:6: not valid YAML"),
        (GOOD + "search: {trials: 3}\0\n", "mine.yaml:5: not valid YAML: unacceptable character"),
        (GOOD.encode() + b"search: {sampler: \xff}\n", "mine.yaml:5: is not UTF-8 text"),
        (GOOD + "search: {trials: .inf}\n", "mine.yaml:5: 'search.trials' is inf"),
        (GOOD + "search: {minutes: 1e400}\n", "mine.yaml:5: 'search.minutes' is inf"),
        ("", "mine.yaml:1: a definition is a mapping"),
        ("- a\n", "mine.yaml:1: a definition is a mapping"),
        ("!!map\n", "mine.yaml:1: the tag !!map is not allowed"),
    ],
)  # fmt: skip
def test_it_is_refused_with_its_line(folder, text, words):
    import re

    said = refused(folder, text)
    assert re.search(words, said), said


def test_an_expansion_is_refused_before_it_takes_memory(folder):
    tracemalloc.start()
    refused(folder, GOOD + laughs(60))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30e6


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("workload.x=" + laughs(12).replace("\n", "\n"), "passes 10,000 keys and values"),
        ("workload.x=" + "[" * 5000, "nested more than 40 deep"),
        ("search_space.groups.²=1", "a list of 1 is indexed by 0 … 0, not '²'"),
        ("search_space.groups.٣=1", "'٣' is no part of a key"),
        ("search_space.groups." + "9" * 5000 + "=1", "a list of 1 is indexed by 0 … 0"),
        ("search_space.groups.-1=1", "a list of 1 is indexed by 0 … 0"),
        ("=1", "write it as key=value"),
        ("", "write it as key=value"),
        ("search.=1", "'' is no part of a key"),
        (".=1", "'' is no part of a key"),
        ("a..b=1", "'' is no part of a key"),
        (".".join("a" * 5000) + "=1", "the key has more than 40 parts"),
        ("search.trials=1e400", "--set search.trials=1e400: 'search.trials' is inf"),
        ("search.trials=.nan", "'search.trials' is nan"),
        (
            "search.trials=99999999999999999999999",
            "'search.trials' is 99999999999999999999999; it must be less than or equal to 1000000",
        ),
        ("search.seed=4294967296", "'search.seed' is 4294967296; it must be less than"),
        ("search.minutes=.inf", "'search.minutes' is inf"),
        ("workload.x=2026-01-31", "'workload.x' is a date"),
        ("workload.x=!!set {a}", "the tag !!set"),
        ("workload.x={1: 2}", "the key 1 is not text"),
        ("search.trials=\x00", "not valid YAML"),
        ("register={name: x, tracking_uri: 'http://me:geheim@host'}", "carries credentials"),
        ("register.tracking_uri=http://host/?token=geheim", "carries credentials"),
        ("search_space=~nobodyatall/space.yaml", "there is no file"),
        ("search_space=" + "a" * 5000 + ".yaml", "there is no file"),
        ("search_space=" + "a" * 5000, "there is no 'aaa"),
        ("evaluator=/dev/zero", "there is no file '/dev/zero'"),
        ("evaluator=[1]", "--set evaluator=[1]: 'evaluator' is [1]; it must be a name in evaluators/"),
        ("evaluator=5", "evaluator"),
        ("search=3", "'search' is 3; it must be a mapping of keys to values"),
        ("workload=", "workload"),
        ("workload=[]", "workload"),
    ],
)
def test_overrides_are_refused_likewise(folder, override, words):
    said = refused(folder, GOOD, override)
    assert words in said
    assert "geheim" not in said


def test_what_is_odd_and_right_is_taken(folder, monkeypatch):
    monkeypatch.setenv("A", "${B}")
    monkeypatch.setenv("B", "${A}")
    path = folder / "odd.yaml"
    text = GOOD.replace("[1, 2]", '["${A}", *s, 0x1F, !!str 2026-01-31, yes, &t true]').replace(
        "name: mine", "name: &s mine"
    )
    text = text.replace("!!str 2026-01-31", "'2026-01-31'")
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"search: &base {trials: 7}\r\n")
    definition, _ = load_pipeline(str(path))
    assert definition.workload.options["options"] == ["${B}", "mine", 31, "2026-01-31", "yes", True]
    assert definition.search.trials == 7
    path.write_text(GOOD + "search: {<<: {trials: 9, seed: 3}, trials: 8}\n")
    definition, _ = load_pipeline(str(path), [Override.parse("search.workers=2")])
    assert (definition.search.trials, definition.search.seed, definition.search.workers) == (8, 3, 2)


def test_an_override_changes_its_own_part_and_not_what_shares_an_anchor(folder):
    path = folder / "shared.yaml"
    path.write_text(GOOD.replace("[1, 2]", "{a: 1}").replace("}\nsearch_space", ", other: *o}\nsearch_space"))
    definition, _ = load_pipeline(str(path), [Override.parse("workload.options.a=5")])
    assert definition.workload.options == {"options": {"a": 5}, "other": {"a": 1}}
    assert definition.where("workload") == f"{path}:2" or definition.where("workload").endswith("shared.yaml:2")


def test_what_is_no_file(folder):
    os.mkfifo(folder / "pipe.yaml")
    (folder / "folder.yaml").mkdir()
    for name in ("pipe.yaml", "folder.yaml", "missing.yaml", "a" * 300 + ".yaml"):
        for load in (load_pipeline, load_evaluator):
            with pytest.raises(DefinitionError, match="there is no file"):
                load(str(folder / name))
    for name in ("/dev/zero", "/dev/null", "~nobodyatall/x.yaml", "a\0b.yaml", "é" * 300, ""):
        with pytest.raises(DefinitionError, match="there is no"):
            load_pipeline(name)


def test_a_mapping_from_python_is_held_to_the_same(folder):
    from ruamel.yaml import YAML

    tree = YAML(typ="safe").load(GOOD)
    for value in (dt.date(2026, 1, 31), {1, 2}, b"x", float("nan"), "http://me:geheim@host", {1: 2}, object()):
        tree["workload"]["options"] = value
        with pytest.raises(DefinitionError, match="definition.workload.options"):
            pipeline_from(tree, [], folder)


SCALARS = st.sampled_from(
    ["a", "1", "-1", "0.5", ".nan", ".inf", "1e400", "true", "null", "~", "2026-01-31", "'x'", '"\\0"', "*a", "&a b", "!!set {x}",
     "!x y", "[]", "{}", "[1, 2]", "{a: b}", "${A}", "${HOME}", "999999999999999999999", "|", "> x", "<<", "@", "%", "\t", "accuracy",
     "maximize", "l1", "{kind: ssh}", "http://a:b@c", "²", "\x85", "?"]
)  # fmt: skip
KEYS = st.sampled_from(
    ["name", "workload", "factory", "search_space", "groups", "methods", "removed", "evaluator", "objectives", "constraints", "accuracy",
     "device", "kind", "search", "trials", "seed", "fidelities", "nni", "recover", "distill", "register", "tracking_uri", "<<", "1", "? x",
     "&k x", "null", "[a]", "-"]
)  # fmt: skip


@st.composite
def yaml_texts(draw):
    lines, depth = [], 0
    for _ in range(draw(st.integers(1, 8))):
        value = draw(st.one_of(st.just(""), SCALARS))
        lines.append("  " * depth + draw(st.sampled_from(["", "", "- "])) + draw(KEYS) + ": " + value)
        depth = max(0, depth + draw(st.sampled_from([-1, 0, 0, 1])) if value else depth + 1)
    text = draw(st.sampled_from(["", GOOD])) + "\n".join(lines)
    return text if draw(st.booleans()) else text[: draw(st.integers(0, len(text)))]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=yaml_texts(), override=st.one_of(st.none(), st.builds("{}={}".format, KEYS, SCALARS)))
@example(text=GOOD, override="search_space.groups.0=1")
@example(text=GOOD, override="search.fidelities=2")
def test_whatever_the_text_it_loads_or_is_refused(folder, text, override):
    path = folder / "drawn.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        definition, _ = load_pipeline(str(path), [Override.parse(override)] if override is not None else [])
    except (DefinitionError, WorkloadError):
        return
    definition.as_written()
