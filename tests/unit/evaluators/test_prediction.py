"""Operators, their table and the predictor, on a device whose clock is a formula."""

from __future__ import annotations

import functools
import json
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import kendalltau

from invented import ladder, whole
from secateur.errors import EvaluationFailed, ModelError, StateError
from secateur.evaluators.onnx_inputs import random_inputs
from secateur.evaluators.operator_table import Table, idle_model, measured_alone, one_operator_model, table_of
from secateur.evaluators.operators import operators_of
from secateur.evaluators.prediction import Predictor, calibration_candidates, fit
from secateur.search_spaces import SearchSpace
from secateur.search_spaces.space import Choice

CHANNELS, PIXELS, CLASSES = 3, 8, 5


def network(widths, *, seed=0, batch="batch", depthwise=False):
    """A stem; per width a block of two convolutions with a shortcut, the inner one so wide; global mean, flatten, linear layer."""
    rng = np.random.default_rng(seed)
    nodes, stored = [], []

    def weight(name, *shape):
        stored.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
        return name

    def conv(x, out, before, after, group=1):
        weights = [weight(f"{out}.w", after, before // group, 3, 3), weight(f"{out}.b", after)]
        nodes.append(helper.make_node("Conv", [x, *weights], [out], pads=[1, 1, 1, 1], group=group))
        return out

    def node(kind, inputs, out, **attributes):
        nodes.append(helper.make_node(kind, inputs, [out], **attributes))
        return out

    x = node("Relu", [conv("input", "stem", CHANNELS, 16)], "stem.relu")
    for i, width in enumerate(widths):
        y = node("Relu", [conv(x, f"{i}a", 16, width)], f"{i}a.relu")
        if depthwise:
            y = node("Relu", [conv(y, f"{i}d", width, width, group=width)], f"{i}d.relu")
        y = node("Add", [conv(y, f"{i}b", width, 16), x], f"{i}.add")
        x = node("Relu", [y], f"{i}.relu")
    x = node("GlobalAveragePool", [x], "mean")
    stored.append(numpy_helper.from_array(np.array([0, -1], np.int64), "flat"))
    x = node("Reshape", [x, "flat"], "flattened")
    node("Gemm", [x, weight("head.w", CLASSES, 16), weight("head.b", CLASSES)], "output", transB=1)
    image = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, CHANNELS, PIXELS, PIXELS])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, CLASSES])
    graph = helper.make_graph(nodes, "g", [image], [output], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


DENSE = network([64, 64, 64])


def kinds(operators):
    return ["+".join(step.type for step in operator.steps) for operator in operators]


# --- operators


def test_what_runtimes_fuse_is_one_operator():
    found = kinds(operators_of(network([24]), 1))
    assert found == ["Conv+Relu", "Conv+Relu", "Conv+Add+Relu", "GlobalAveragePool", "Gemm"], "a reshape does no work"


def test_shapes_are_those_of_the_run():
    stem, inner, outer, _, head = operators_of(network([24]), 4)
    assert [value.shape for value in inner.inputs] == [(4, 16, PIXELS, PIXELS)]
    assert inner.output == (4, 24, PIXELS, PIXELS)
    assert len(outer.inputs) == 2, "the shortcut is read too"
    assert inner.product == (24, 16, 4 * PIXELS * PIXELS * 9)
    assert head.product == (CLASSES, 16, 4)
    assert stem.weights == 16 * CHANNELS * 9 + 16
    assert inner.moved == 4 * PIXELS * PIXELS * (16 + 24)


def test_equal_shapes_are_equal_operators_whatever_the_weights():
    one, other = (operators_of(network([24, 8], seed=seed), 1) for seed in (1, 2))
    assert one == other
    assert len(set(one)) == len({operator.key for operator in one})
    wider = operators_of(network([32, 8]), 1)
    assert one[1] != wider[1]
    assert one[1].key != wider[1].key
    assert one[1].kind == wider[1].kind


def test_one_filter_per_channel_is_a_kind_of_its_own_at_every_width():
    narrow, wide = (operators_of(network([width], depthwise=True), 1) for width in (8, 24))
    assert narrow[2].kind == wide[2].kind
    assert narrow[2].kind != narrow[1].kind
    assert wide[2].product == (24, 1, PIXELS * PIXELS * 9)


def small(nodes, inputs, outputs, stored=()):
    named = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in entries]
        for entries in (inputs, outputs)
    ]
    graph = helper.make_graph([helper.make_node(*node) for node in nodes], "g", *named, list(stored))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def test_what_two_read_is_not_fused_away():
    x, y = [("x", ["n", 4])], [("y", ["n", 4])]
    nodes = [("Softmax", ["x"], ["a"]), ("Sigmoid", ["a"], ["b"]), ("Mul", ["a", "b"], ["y"])]
    assert kinds(operators_of(small(nodes, x, y), 1)) == ["Softmax", "Sigmoid+Mul"]
    seen = [*y, ("a", ["n", 4])]  # an output of the model must be there in the end
    assert kinds(operators_of(small([*nodes[:2], ("Neg", ["b"], ["y"])], x, seen), 1)) == ["Softmax", "Sigmoid+Neg"]


def test_what_is_known_before_the_first_run_is_no_operator():
    stored = [numpy_helper.from_array(np.ones((4, 4), np.float32), "w")]
    nodes = [("Neg", ["w"], ["v"]), ("MatMul", ["x", "v"], ["y"])]
    (product,) = operators_of(small(nodes, [("x", ["n", 4])], [("y", ["n", 4])], stored), 2)
    assert product.product == (4, 4, 2)
    assert product.weights == 16


def test_what_cannot_be_known_says_where():
    with pytest.raises(ModelError, match="no ONNX model"):
        operators_of(b"x", 1)
    free = small([("Softmax", ["x"], ["y"])], [("x", ["n", "length"])], [("y", ["n", "length"])])
    with pytest.raises(ModelError, match="shape of 'x' at Softmax .* Fix all dimensions but the first"):
        operators_of(free, 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_every_operator_runs_alone(batch):
    for operator in operators_of(network([24], depthwise=True), batch):
        model = one_operator_model(operator)
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        (inputs,) = random_inputs(model, batch, 1)
        (output,) = session.run(None, dict(zip(names, inputs, strict=True)))
        assert output.shape == operator.output
        assert [tuple(x.shape) for x in inputs] == [value.shape for value in operator.inputs]
        assert operators_of(model, batch)[0].key == operator.key, "it is that operator and nothing else"


# --- a device that is a formula


known_operators = functools.cache(operators_of)


def pure(operator):
    """Microseconds of an operator inside a network: vectors of 16 output channels."""
    out, into, times = operator.product
    return 2.0 + 1e-4 * (-(-out // 16) * 16) * into * times + 2e-4 * operator.moved


class Device:
    """overhead: microseconds of any run. layout: microseconds per element that an operator alone pays more than in a network."""

    def __init__(self, overhead=5.0, layout=3e-4, noise=0.0, seed=0):
        self.overhead, self.layout, self.noise = overhead, layout, noise
        self.rng, self.asked = np.random.default_rng(seed), []

    def alone(self, models):
        self.asked.append(list(models))
        return [self._alone(model) for model in models]

    def _alone(self, model):
        (operator,) = known_operators(model, 1)
        if model == idle_model():
            return self.overhead * 1e-6
        return (self.overhead + pure(operator) + self.layout * operator.moved) * 1e-6

    def share(self, model, dense=DENSE):
        whole, part = (self.overhead + sum(map(pure, known_operators(m, 1))) for m in (dense, model))
        return part / whole * (1 + self.noise * self.rng.standard_normal())


def drawn(count, seed):
    rng = np.random.default_rng(seed)
    return [network([int(w) for w in rng.choice(range(8, 65, 8), 3)]) for _ in range(count)]


def fitted(device, models=12, seed=0, most=192):
    networks = drawn(models, seed)
    table = table_of((o for model in [DENSE, *networks] for o in known_operators(model, 1)), device.alone, most)
    return fit(DENSE, [(model, device.share(model)) for model in networks], table, 1)


# --- the table


def test_the_price_of_a_run_is_taken_off():
    operators = operators_of(DENSE, 1)
    table = table_of(operators, Device(layout=0.0).alone)
    for operator in operators:
        assert table.time(operator) == pytest.approx(pure(operator) * 1e-6)


def test_each_pass_measures_everything_once_in_another_order():
    device = Device()
    table_of(operators_of(network([24, 24]), 1), device.alone)
    first, second = device.asked
    assert len(first) == len(set(first)) == 6, "five different operators, and one that does nothing"
    assert sorted(first) == sorted(second)
    assert first != second


def test_what_disturbs_one_pass_is_forgotten():
    device, calm = Device(), Device()

    def disturbed(models):
        times = device.alone(models)
        return [t * 10 for t in times] if len(device.asked) == 1 else times

    operators = operators_of(DENSE, 1)
    assert table_of(operators, disturbed) == table_of(operators, calm.alone)


def test_what_was_not_measured_lies_on_the_curve_of_its_kind():
    known = [o for width in (8, 16, 24, 40, 48, 64) for o in operators_of(network([width]), 1)]
    table = table_of(known, Device(layout=0.0).alone)
    for width in (32, 56, 80):
        for operator in operators_of(network([width]), 1):
            assert table.time(operator) == pytest.approx(pure(operator) * 1e-6, rel=0.05)
    # a kind that was never seen: the curve of all kinds is the best guess that there is
    strange = operators_of(network([32], depthwise=True), 1)[2]
    assert table.time(strange) == pytest.approx(pure(strange) * 1e-6, rel=0.5)


def test_where_there_are_too_many_each_kind_and_the_most_used_are_measured():
    device = Device()
    operators = [o for widths in ([8], [16], [24], [24], [24]) for o in operators_of(network(widths), 1)]
    table = table_of(operators, device.alone, most=6, passes=1)
    assert len(device.asked[0]) == 7
    assert {operator.kind for operator in operators} == set(table.curves) - {""}
    assert {o.key for o in operators_of(network([24]), 1)} <= set(table.seconds)
    # a kind is never left out
    assert len(table_of(operators, device.alone, most=1).seconds) == len({operator.kind for operator in operators})


def test_an_operator_that_does_not_run_alone_is_interpolated():
    operators = [o for width in range(8, 65, 8) for o in operators_of(network([width]), 1)]
    refused = operators_of(network([24]), 1)[1]

    def measure(models):
        times = Device(layout=0.0).alone(models)
        return [np.nan if model == one_operator_model(refused) else t for model, t in zip(models, times, strict=True)]

    table = table_of(operators, measure)
    assert refused.key not in table.seconds
    assert table.time(refused) == pytest.approx(pure(refused) * 1e-6, rel=0.05)
    with pytest.raises(EvaluationFailed, match="none of 19 operators could be timed alone"):
        table_of(operators, lambda models: [np.nan] * len(models))


def test_on_a_device_a_model_is_measured_against_itself():
    class Devices:
        def measure(self, work):
            assert work.candidate == work.reference
            (batch,) = work.inputs
            if b"Gemm" in work.candidate:
                raise EvaluationFailed("not this one")
            times = SimpleNamespace(min=float(batch[0].size))
            return SimpleNamespace(report=SimpleNamespace(candidate_ms=times, reference_ms=SimpleNamespace(min=1e9)))

    conv, *_, gemm = operators_of(network([8]), 2)
    conv_seconds, gemm_seconds = measured_alone(Devices(), 2)([one_operator_model(conv), one_operator_model(gemm)])
    assert conv_seconds == pytest.approx(2 * CHANNELS * PIXELS * PIXELS / 1e3)
    assert np.isnan(gemm_seconds)


# --- the predictor


def test_the_dense_network_is_known_exactly():
    assert fitted(Device()).predict(DENSE).ratio == 1.0


def test_it_foresees_networks_that_it_has_not_seen():
    device = Device()
    predictor = fitted(device)
    unseen = drawn(40, seed=1)
    foreseen = np.array([predictor.predict(model).ratio for model in unseen])
    real = np.array([device.share(model) for model in unseen])
    assert np.abs(foreseen / real - 1).max() < 0.02
    assert kendalltau(foreseen, real).statistic > 0.95
    # The bare table is off: alone, operators pay for layouts that networks do not pay for.
    sums = [sum(predictor.table.time(o) for o in operators_of(model, 1)) for model in [*unseen, DENSE]]
    assert np.abs(np.array(sums[:-1]) / sums[-1] / real - 1).mean() > 3 * np.abs(foreseen / real - 1).mean()


def test_intervals_hold_what_is_measured_and_say_so_beforehand():
    covered, said = [], []
    unseen = drawn(16, seed=99)
    for seed in range(8):
        device = Device(noise=0.03, seed=seed)
        predictor = fitted(device)
        for model in unseen:
            low, high = predictor.predict(model).interval
            covered.append(low <= device.share(model) <= high)
        said.append(predictor.quality.mean_error)
    assert 0.85 <= np.mean(covered) <= 0.995
    assert 0.02 < np.mean(said) < 0.05, "the noise is 2.4 % on average"


def test_one_disturbed_measurement_does_not_spoil_it():
    device = Device()
    networks = drawn(12, seed=0)
    calibration = [(model, device.share(model)) for model in networks]
    table = fitted(device).table
    calibration[3] = (networks[3], calibration[3][1] * 1.5)
    predictor = fit(DENSE, calibration, table, 1)
    errors = [abs(predictor.predict(model).ratio / device.share(model) - 1) for model in drawn(20, seed=1)]
    assert max(errors) < 0.03
    assert predictor.half_width > 0.3, "but it is not hidden"
    assert predictor.quality.mean_error > 0.02


def test_few_networks_make_wide_intervals():
    narrow = [fitted(Device(noise=0.03, seed=s), models=12).half_width for s in range(6)]
    wide = [fitted(Device(noise=0.03, seed=s), models=5).half_width for s in range(6)]
    assert np.median(wide) > np.median(narrow)
    assert min(narrow) >= 0.01, "nothing is foreseen more exactly than it is measured"


def test_networks_that_are_all_alike_leave_the_table_as_it_is():
    device = Device(overhead=0.0, layout=0.0)
    model = network([32, 32, 32])
    table = fitted(device).table
    predictor = fit(DENSE, [(model, device.share(model))] * 5, table, 1)
    assert predictor.coefficients == pytest.approx((1, 0, 0), abs=0.02)
    assert predictor.quality.kendall is None


@pytest.mark.parametrize("shares", [[0.5] * 4, [0.5] * 5 + [float("nan")], [0.5] * 5 + [0.0]])
def test_what_cannot_calibrate_is_refused(shares):
    table = Table({}, {"": (0.0,) * 12})
    with pytest.raises(EvaluationFailed, match="needs at least 5 networks with a measured latency"):
        fit(DENSE, [(DENSE, share) for share in shares], table, 1)


def test_it_comes_back_from_a_file_as_it_was():
    predictor = fitted(Device(noise=0.01))
    back = Predictor.from_json(predictor.to_json())
    assert back == predictor
    assert back.predict(network([8, 40, 16])) == predictor.predict(network([8, 40, 16]))
    for content in (b"", b"{", json.dumps({"batch": 1}).encode()):
        with pytest.raises(StateError, match="no latency predictor"):
            Predictor.from_json(content)


# --- what it is calibrated on


def space(*widths):
    groups = [whole(w[0], f"g{i}") for i, w in enumerate(widths)]
    return SearchSpace({g.name: Choice(g, ("l2", "l1"), ladder(g, w)) for g, w in zip(groups, widths, strict=True)}, ())


EIGHTS = tuple(range(64, 7, -8))


def test_calibration_networks_are_spread_over_sizes_and_groups():
    made = space(*[EIGHTS] * 6)
    chosen = calibration_candidates(made, 12, seed=3)
    widths = np.array([[candidate.width(g.name, g.width) for g in made.groups] for candidate in chosen])
    assert widths.shape == (12, 6)
    assert len({tuple(row) for row in widths}) == 12
    assert not (widths == 64).all(axis=1).any(), "the dense network's share is known"
    assert (widths == 8).all(axis=1).any(), "the smallest is there"
    kept = np.sort(widths.mean(axis=1))
    assert np.diff(kept).max() <= 16, "sizes without large gaps"
    assert kept[-1] > 52
    assert (widths.std(axis=0) > 8).all()
    correlations = np.corrcoef(widths - widths.mean(axis=1, keepdims=True), rowvar=False)
    assert np.abs(correlations[np.triu_indices(6, 1)]).max() < 0.95, "no two groups always move together"


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from([EIGHTS, (16, 8), (32, 24, 16), (10, 7)]), min_size=1, max_size=8),
    st.integers(1, 14),
    st.integers(0, 5),
)
def test_calibration_networks_are_allowed_different_and_repeatable(widths, count, seed):
    made = space(*widths)
    chosen = calibration_candidates(made, count, seed)
    assert chosen == calibration_candidates(made, count, seed)
    assert len(chosen) <= count
    keys = {tuple(candidate.width(g.name, g.width) for g in made.groups) for candidate in chosen}
    assert len(keys) == len(chosen)
    for candidate in chosen:
        for name, choice in made.choices.items():
            assert candidate.width(name, choice.group.width) in choice.widths
    possible = int(np.prod([len(w) for w in widths])) - 1
    assert len(chosen) <= possible
    assert len(chosen) == count or possible < 4 * count, "there were more"


def test_a_small_space_has_fewer():
    assert len(calibration_candidates(space((16, 8), (16, 8)), 12, seed=0)) == 3
