from __future__ import annotations

import dataclasses
import weakref

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from conftest import REPOSITORY, make_workload
from invented import narrowed
from nets import NETWORKS, TwoConvolutions, images, network, shaken
from secateur.agent.latency import Protocol
from secateur.compression.costs import layer_costs
from secateur.compression.groups import find_groups
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.saliency import compute_saliencies
from secateur.compression.transforms.channels import without
from secateur.definition import EvaluatorDefinition, SearchSpaceDefinition
from secateur.errors import DataUnreadable, EvaluationFailed, ModelError, WorkloadError
from secateur.evaluators import DenseModel, Evaluator, Place, role_batches
from secateur.evaluators.devices import open_devices
from secateur.evaluators.metrics import METRICS, Metric
from secateur.evaluators.model_files import ModelFiles
from secateur.evaluators.onnx_export import OPSET, export
from secateur.evaluators.onnx_template import make_template
from secateur.evaluators.racing import Race
from secateur.evaluators.runtimes import Host, host_for
from secateur.evaluators.sample_scores import RESAMPLES, SEARCH_RESAMPLES
from secateur.evaluators.scoring import Scoring
from secateur.records import Bypass, Fidelity, Job, Measurement, Plan
from secateur.search_spaces import build_space
from secateur.workloads.roles import collect, drawn

FAST = Protocol(block=2, copies=2, rounds=1)


def job(space, saliencies, candidate, *hurdles, **options):
    return Job(candidate, resolve(candidate, space.groups, saliencies), *hurdles, **options)


def run_onnx(file: bytes, x: Tensor) -> Tensor:
    return torch.from_numpy(host_for("onnxruntime", {}, 1).open(file).run([x.numpy()])[0])


@pytest.fixture(scope="module")
def templates(dense_onnx):
    files = {"residual": dense_onnx}
    return {name: make_template(network(name), (images(),), files.get(name)) for name in NETWORKS}


@pytest.mark.parametrize("name", NETWORKS)
def test_rewritten_files_say_what_the_cut_module_says(name, templates):
    model = network(name)
    groups = find_groups(model, (images(),)).groups
    x = images(5, seed=4)
    for share in (3, 2):
        smaller = apply(model, without(groups, {g.name: g.removable[::share] for g in groups}))
        with torch.no_grad():
            torch.testing.assert_close(run_onnx(templates[name].render(smaller), x), smaller(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["residual", "VGG"])
def test_rewritten_files_are_as_large_as_exported_ones(name, templates):
    model = network(name)
    groups = find_groups(model, (images(),)).groups
    smaller = apply(model, without(groups, {g.name: g.removable[::2] for g in groups}))
    exported = export(smaller, (images(),))
    assert len(templates[name].render(smaller)) == pytest.approx(len(exported), abs=64)


def test_exported_files_carry_no_paths_and_one_opset(dense_onnx):
    for trace in (b".py", b"site-packages", str(REPOSITORY).encode(), b"forward"):
        assert trace not in dense_onnx, trace
    exported = onnx.load_model_from_string(dense_onnx)
    assert [entry.version for entry in exported.opset_import if entry.domain == ""] == [OPSET]
    assert not exported.graph.value_info
    onnx.checker.check_model(exported)
    assert exported.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


class DataDependent(TwoConvolutions):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        if x.mean() > 0.1:
            x = self.two(x)
        return self.head(x.mean((2, 3)))


def test_what_cannot_be_exported_names_the_operation():
    with pytest.raises(ModelError, match=r"cannot be exported to ONNX: .*data-dependent"):
        export(shaken(DataDependent()), (images(),))


class Derived(TwoConvolutions):
    """A weight that is computed: its exported tensor is none of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.linspace(0.5, 1.5, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x)) * (self.table[:1] * 2.0)
        return self.head(torch.relu(self.two(x)).mean((2, 3)))


def here(definition: EvaluatorDefinition) -> Place:
    return Place(open_devices(definition, REPOSITORY), FAST)


def evaluator_for(model: nn.Module, onnx: bytes | None = None, **settings) -> tuple:
    workload = make_workload(model)
    found = find_groups(model, workload.example_inputs)
    space = build_space(SearchSpaceDefinition.model_validate({"groups": [{"methods": ["l2"]}]}), found)
    settings = {"objectives": {"accuracy": "maximize", "latency": "minimize", "size": "minimize"}} | settings
    definition = EvaluatorDefinition.model_validate(settings)
    made = Evaluator(definition, DenseModel(model, workload, found.costs, onnx), here(definition))
    return made, space, compute_saliencies(model, space.groups, ["l2"], workload)


@pytest.fixture(scope="module")
def tiny(dense_onnx):
    return evaluator_for(network("residual"), dense_onnx)


def test_the_dense_candidate_is_the_dense_network(tiny):
    evaluator, space, saliencies = tiny
    found = evaluator.evaluate(job(space, saliencies, space.dense()))
    assert found.failure is None
    assert found.measurements["damage"].value == pytest.approx(0.0, abs=1e-6)
    assert found.measurements["macs"].value == evaluator.costs.total
    dense = evaluator.measure(evaluator.files.dense, "search", ["accuracy", "size"])
    assert found.measurements["accuracy"].value == dense["accuracy"].value
    assert found.measurements["size"].value == dense["size"].value


def test_a_candidate_is_opened_once_on_this_host(tiny, monkeypatch):
    evaluator, space, saliencies = tiny
    evaluator.dense_scores("search")
    opened = []
    monkeypatch.setattr(Host, "open", lambda self, file, method=Host.open: (opened.append(file), method(self, file))[1])
    found = evaluator.evaluate(job(space, saliencies, space.uniform(0.5, "l2")))
    assert found.failure is None
    assert len(opened) == 1


def test_samples_of_a_sorted_role_are_drawn_so_that_the_first_share_stands_for_all(tiny):
    """Racing looks at a share of the search data; a folder that is read class by class must not show it one class."""
    evaluator, _, _ = tiny
    workload = evaluator.workload
    _, targets = collect(workload.data.search)
    by_class = Subset(workload.data.search, targets.argsort(stable=True).tolist())
    data = dataclasses.replace(workload.data, search=by_class)
    made = Scoring(dataclasses.replace(workload, data=data), evaluator.host, 1, evaluator.files)
    seen = made.samples("search").targets
    assert sorted(seen.tolist()) == sorted(targets.tolist())
    assert seen.tolist() == [int(by_class[i][1]) for i in drawn(by_class).indices] != sorted(targets.tolist())


def test_a_role_that_is_too_large_for_memory_is_read_batch_by_batch_and_says_the_same(tiny, monkeypatch):
    evaluator, _, _ = tiny
    workload, read = evaluator.workload, []

    class Noted(Dataset):
        def __len__(self):
            return len(workload.data.search)

        def __getitem__(self, number):
            read.append(number)
            return workload.data.search[number]

    noted = dataclasses.replace(workload, data=dataclasses.replace(workload.data, search=Noted()))
    held = Scoring(noted, evaluator.host, 8, evaluator.files).samples("search")
    monkeypatch.setattr(role_batches, "HELD_BYTES", 0)
    streamed = Scoring(noted, evaluator.host, 8, evaluator.files).samples("search")
    torch.testing.assert_close(streamed.targets, held.targets, rtol=0, atol=0)
    torch.testing.assert_close(streamed.dense_outputs, held.dense_outputs, rtol=0, atol=0)
    assert len(streamed.batches) == len(held.batches)
    del read[:]
    for mine, theirs in zip(streamed.batches[2:], held.batches[2:], strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0])
    assert len(read) == len(Noted()) - 16, "each sample of the batches asked for, once"


class WithoutBias(nn.Module):
    """Zeros in, zeros out, whatever the weights are."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(8, 5, bias=False)

    def forward(self, x):
        return self.head(torch.relu(self.one(x)).mean((2, 3)))


def test_a_file_of_other_weights_is_noticed_though_the_example_is_zeros():
    torch.manual_seed(0)
    model, other = WithoutBias().eval(), WithoutBias().eval()
    workload = dataclasses.replace(make_workload(model), example_inputs=(torch.zeros(2, 3, 8, 8),))
    host = host_for("onnxruntime", {}, 1)
    file = export(other, workload.example_inputs)
    dense = DenseModel(model, workload, layer_costs(model, workload.example_inputs))
    with pytest.raises(ModelError, match="The outputs of the exported model and of the torch module differ by"):
        ModelFiles(dataclasses.replace(dense, onnx=file), host)
    files = ModelFiles(dense, host)
    assert ModelFiles(dataclasses.replace(dense, onnx=files.dense.onnx), host).dense.onnx == files.dense.onnx


def test_a_probe_tells_the_damage_on_calibration_images(tiny):
    evaluator, space, saliencies = tiny
    candidate = space.uniform(0.4, "l2")
    probed = evaluator.probe(job(space, saliencies, candidate))
    full = evaluator.evaluate(job(space, saliencies, candidate))
    module = evaluator.compress(candidate, resolve(candidate, space.groups, saliencies)).module
    (x,), _ = collect(evaluator.workload.data.calibration, 64)
    with torch.no_grad():
        dense, outputs = evaluator.model(x), module(x)
    expected = ((outputs - dense).square().sum() / (dense - dense.mean(0)).square().sum()).item()
    assert probed.measurements["damage"].value == pytest.approx(expected, rel=1e-3)
    assert probed.plan_key == full.plan_key
    assert probed.measurements.keys() == {"damage"}


def test_a_hopeless_candidate_is_scored_on_the_first_images_only(tiny):
    evaluator, space, saliencies = tiny
    candidate = space.smallest()
    better = {"accuracy": 2.0, "latency": 0.0, "size": 0.0}  # beyond any bound
    stopped = evaluator.evaluate(job(space, saliencies, candidate, (better,)), first_images=0.25)
    full = evaluator.evaluate(job(space, saliencies, candidate), first_images=0.25)
    assert full.complete
    assert stopped.failure is None
    assert "the front has 2.000 at no higher cost" in stopped.stopped
    seen, everything = (e.measurements["accuracy"].samples for e in (stopped, full))
    assert seen == -(-everything // 4)
    unbeatable = {"accuracy": 2.0, "latency": 0.0, "size": 1e9}
    assert evaluator.evaluate(job(space, saliencies, candidate, (unbeatable,)), first_images=0.25).complete


def test_the_question_is_asked_once(tiny, monkeypatch):
    evaluator, space, saliencies = tiny
    asked = []
    monkeypatch.setattr(Race, "lost", lambda _, scores, *__: asked.append(len(scores)))
    hurdle = {"accuracy": 1.0, "latency": 0.0, "size": 0.0}
    found = evaluator.evaluate(job(space, saliencies, space.smallest(), (hurdle,)), first_images=0.25)
    assert found.complete
    assert asked == [-(-len(evaluator.workload.data.search) // 4)]


def test_a_refined_network_is_what_is_measured(tiny):
    evaluator, space, saliencies = tiny
    seen = []

    def refine(module):
        seen.append(module)
        with torch.no_grad():
            module.get_submodule("linear").weight.zero_()
            module.get_submodule("linear").bias.copy_(torch.arange(5.0)[: module.get_submodule("linear").out_features])
        return module

    found = evaluator.evaluate(
        job(space, saliencies, space.uniform(0.4, "l2"), fidelity=Fidelity(steps=1)), refine=refine
    )
    assert len(seen) == 1
    targets = [int(y) for _, y in evaluator.workload.data.search]
    last = seen[0].get_submodule("linear").out_features - 1
    assert found.measurements["accuracy"].value == pytest.approx(sum(y == last for y in targets) / len(targets))
    assert "latency" not in found.measurements, "the same widths as in the search: the device is not asked again"


def test_the_network_before_is_let_go_before_the_next_one_is_made(tiny):
    evaluator, space, saliencies = tiny
    before, alive = weakref.ref(evaluator.files.session(evaluator.files.dense)), []

    def refine(module):
        alive.append(before() is not None)
        return module

    evaluator.evaluate(job(space, saliencies, space.uniform(0.4, "l2"), fidelity=Fidelity(steps=1)), refine=refine)
    assert alive == [False]


def test_the_users_faults_over_a_network_are_its_failure_and_a_sample_that_cannot_be_read_is_not(tiny):
    evaluator, space, saliencies = tiny

    def trained(error):
        def refine(_module):
            raise error

        return evaluator.evaluate(
            job(space, saliencies, space.uniform(0.4, "l2"), fidelity=Fidelity(steps=1)), refine=refine
        )

    assert trained(WorkloadError("the loss raised ValueError")).failure == "the loss raised ValueError"
    with pytest.raises(DataUnreadable, match="sample 7"):
        trained(DataUnreadable("The data role 'train': sample 7 raised OSError"))


def test_accuracy_is_that_of_the_torch_module(tiny):
    evaluator, space, saliencies = tiny
    candidate = space.uniform(0.4, "l2")
    found = evaluator.evaluate(job(space, saliencies, candidate))
    module = evaluator.compress(candidate, resolve(candidate, space.groups, saliencies)).module
    (x,), y = collect(evaluator.workload.data.search)
    with torch.no_grad():
        expected = evaluator.workload.score(module(x), y).mean().item()
    assert found.measurements["accuracy"].value == pytest.approx(expected, abs=1.5 / len(y))
    assert evaluator.files.exports == 0


def test_every_figure_says_where_it_comes_from(tiny):
    evaluator, space, saliencies = tiny
    found = evaluator.evaluate(job(space, saliencies, space.uniform(0.4, "l2"))).measurements
    assert found["accuracy"].samples == len(evaluator.workload.data.search)
    low, high = found["accuracy"].interval
    assert low < found["accuracy"].value < high
    assert found["latency"].provenance == found["accuracy"].provenance == "measured"
    assert "onnxruntime" in found["latency"].device
    assert (
        found["latency"].details["min_ms"] <= found["latency"].details["p50_ms"] <= found["latency"].details["p90_ms"]
    )
    assert found["size"].provenance == found["macs"].provenance == "computed"
    assert all(m.unit for m in found.values())


def test_smaller_is_smaller(tiny):
    evaluator, space, saliencies = tiny
    mild, strong = (evaluator.evaluate(job(space, saliencies, space.uniform(f, "l2"))).measurements for f in (0.2, 0.7))
    for name in ("size", "macs", "parameters"):
        assert strong[name].value < mild[name].value
    assert strong["damage"].value > mild["damage"].value


def test_two_files_are_scored_on_the_same_samples_and_slice_by_slice():
    """Slices are told by the samples as the data set gives them, which are drawn in another order."""
    first, second = network("VGG"), shaken(network("VGG"))
    made, _, _ = evaluator_for(first)
    made.workload = dataclasses.replace(
        made.workload, slices=lambda sample: "even" if int(sample[1]) % 2 == 0 else "odd"
    )
    made._scoring.workload = made.workload
    files = tuple(export(model, made.workload.example_inputs) for model in (first, second))
    found = made.compared(files, "selection")
    assert found.keys() == {"", "even", "odd"}
    _, targets = collect(drawn(made.workload.data.selection))
    odd = (targets % 2 == 1).numpy()
    for which in (0, 1):
        whole = found[""][which].values
        assert len(whole) == len(odd)
        assert np.array_equal(found["odd"][which].values, whole[odd])
        assert np.array_equal(found["even"][which].values, whole[~odd])
    assert not np.array_equal(found[""][0].values, found[""][1].values)
    assert np.array_equal(found[""][0].values, made.dense_scores("selection").values)


def test_several_samples_per_run_give_the_same_score(tiny):
    one, space, saliencies = tiny
    many, *_ = evaluator_for(one.model, one.files.dense.onnx, batch=7)
    candidate = space.uniform(0.4, "l2")
    scores = [e.evaluate(job(space, saliencies, candidate)).measurements["accuracy"].value for e in (one, many)]
    assert scores[0] == scores[1]


@pytest.fixture
def vgg(templates):
    return evaluator_for(network("VGG"), templates["VGG"].dense, objectives={"accuracy": "maximize"})


def test_a_file_that_cannot_be_rewritten_is_exported(vgg):
    evaluator, space, saliencies = vgg
    broken = dataclasses.replace(evaluator.files.template, unexplained=("w",), fixed={"hidden": torch.ones(2)})
    evaluator.files.template = broken
    found = evaluator.evaluate(job(space, saliencies, space.uniform(0.4, "l2")))
    assert found.failure is None
    assert evaluator.files.exports == 1
    assert "hidden changes, from which forward() computes" in evaluator.files.why_exported


def test_a_wrong_rule_is_caught_by_parity(vgg):
    evaluator, space, saliencies = vgg
    rules = dict(evaluator.files.template.rules)
    name = next(n for n in rules if n.endswith("weight"))
    right = rules[name]
    rules[name] = lambda tensors: right(tensors) * 1.5
    evaluator.files.template = dataclasses.replace(evaluator.files.template, rules=rules)
    found = evaluator.evaluate(job(space, saliencies, space.uniform(0.4, "l2")))
    assert found.failure is None
    assert evaluator.files.exports == 1
    assert found.measurements["accuracy"].value > 0


def test_tensors_that_are_not_the_modules_own_are_noticed():
    template = make_template(shaken(Derived()), (images(),))
    smaller = shaken(Derived())
    if template.unexplained:
        with pytest.raises(EvaluationFailed, match="changes, from which forward"):
            template.render(smaller)
    else:
        torch.testing.assert_close(
            run_onnx(template.render(smaller), images()), smaller(images()), rtol=1e-3, atol=1e-4
        )


def test_outputs_that_are_not_finite_are_a_failure_of_that_candidate(tiny, monkeypatch):
    evaluator, space, saliencies = tiny
    original = evaluator.compress

    def poisoned(*arguments):
        made = original(*arguments)
        with torch.no_grad():
            made.module.get_submodule("linear").weight.fill_(float("nan"))
        return made

    monkeypatch.setattr(evaluator, "compress", poisoned)
    found = evaluator.evaluate(job(space, saliencies, space.uniform(0.4, "l2")))
    assert found.failure is not None
    assert found.measurements == {}


def test_a_projects_own_metric_is_measured(workload, dense_onnx):
    def worst(context):
        """Score of the worst class."""
        classes = [context.outputs[context.targets == c].argmax(1).eq(c).float().mean() for c in range(5)]
        return Measurement(float(torch.stack(classes).nan_to_num(0).min()), "score", "measured")

    model = workload.build_model()
    found = find_groups(model, workload.example_inputs)
    definition = EvaluatorDefinition.model_validate({"objectives": {"worst": "maximize"}, "metrics": {"worst": "x:y"}})
    dense = DenseModel(model, workload, found.costs, dense_onnx)
    evaluator = Evaluator(definition, dense, here(definition), {"worst": Metric(worst, "maximize", "")})
    assert 0 <= evaluator.measure(evaluator.files.dense, "search", ["worst"])["worst"].value <= 1


def test_scores_that_are_not_per_sample_get_a_bootstrap_interval(workload, dense_onnx):
    scalar = dataclasses.replace(workload, score=lambda o, t: o.argmax(1).eq(t).float().mean())
    model = workload.build_model()
    found = find_groups(model, workload.example_inputs)
    definition = EvaluatorDefinition.model_validate({"objectives": {"accuracy": "maximize"}})
    values = []
    for scored in (workload, scalar):
        evaluator = Evaluator(definition, DenseModel(model, scored, found.costs, dense_onnx), here(definition))
        values.append(evaluator.measure(evaluator.files.dense, "search", ["accuracy"])["accuracy"])
    assert values[0].value == pytest.approx(values[1].value)
    np.testing.assert_allclose(values[0].interval, values[1].interval, atol=0.05)


def test_a_score_of_the_whole_set_is_resampled_less_for_a_candidate_than_for_what_the_gate_judges(workload, dense_onnx):
    calls = []

    def score(outputs, targets):
        calls.append(len(targets))
        return outputs.argmax(1).eq(targets).float().mean()

    model = workload.build_model()
    definition = EvaluatorDefinition.model_validate({"objectives": {"accuracy": "maximize"}})
    costs = layer_costs(model, workload.example_inputs)
    dense = DenseModel(model, dataclasses.replace(workload, score=score), costs, dense_onnx)
    evaluator = Evaluator(definition, dense, here(definition))
    for role, resamples in (("search", SEARCH_RESAMPLES), ("selection", RESAMPLES), ("test", RESAMPLES)):
        evaluator.measure(evaluator.files.dense, role, ["accuracy", "size"])
        assert len(calls) == 1 + resamples, role
        calls.clear()


def test_the_figures_on_a_first_part_are_told_where_someone_listens(tiny):
    evaluator, space, saliencies = tiny
    told = []
    full = evaluator.evaluate(job(space, saliencies, space.uniform(0.4, "l2")), first_images=0.25, on_part=told.append)
    (part,) = told
    total = len(evaluator.workload.data.search)
    assert part["accuracy"].samples == -(-total // 4)
    assert full.measurements["accuracy"].samples == total
    assert full.complete
    assert part["size"].value == full.measurements["size"].value


def test_all_registered_metrics_are_described():
    for name, metric in METRICS.items():
        assert metric.measure.__doc__, name
        assert metric.direction in ("maximize", "minimize")
        assert metric.summary


class Particular(TwoConvolutions):
    """Runs with all widths while its groups are proven, and later refuses some of them without a word."""

    later = False

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        if self.later and x.shape[1] % 4:
            raise AssertionError
        return self.head(torch.relu(self.two(x)).mean((2, 3)))


@pytest.mark.parametrize("calibration_images", [0, 16])
def test_a_cut_that_the_users_forward_refuses_is_that_candidates_failure(calibration_images, monkeypatch):
    evaluator, space, saliencies = evaluator_for(shaken(Particular()), calibration_images=calibration_images)
    monkeypatch.setattr(Particular, "later", True)
    refused = evaluator.evaluate(job(space, saliencies, narrowed({"one": 7})))
    assert refused.failure == "the cut network does not run: AssertionError"
    assert evaluator.evaluate(job(space, saliencies, narrowed({"one": 4}))).failure is None


def test_a_network_without_a_block_is_exported_and_that_is_no_fault(workload, dense_onnx):
    model = workload.build_model()
    dense = DenseModel(model, workload, layer_costs(model, workload.example_inputs), dense_onnx)
    files = ModelFiles(dense, host_for("onnxruntime", {}, 1))
    module = apply(model, Plan((Bypass("layer1.1"),)))
    found = files.rewritten(module, 1)
    x = images(3, seed=4)
    torch.testing.assert_close(run_onnx(found.onnx, x), module(x).detach(), rtol=1e-3, atol=1e-4)
    assert len(found.onnx) < len(files.dense.onnx)
    assert (files.exports, files.why_exported) == (0, None)
    with pytest.raises(EvaluationFailed, match="a block has been left out"):
        files.template.render(module)
