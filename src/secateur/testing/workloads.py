"""What every workload promises."""

from __future__ import annotations

import pytest
import torch

from secateur.compression.groups import find_groups
from secateur.compression.storage import weights_digest
from secateur.evaluators.onnx_export import export
from secateur.records import ROLES, Workload
from secateur.workloads.loading import build_model, guarded_workload
from secateur.workloads.pytrees import call, length, tensors
from secateur.workloads.samples import in_batches


class WorkloadContract:
    """Subclass it and override the fixture `made` with what your factory returns."""

    @pytest.fixture
    def made(self) -> Workload:
        """The workload."""
        raise NotImplementedError

    @pytest.fixture
    def workload(self, made: Workload) -> Workload:
        """The same, checked as a run does it: types, roles without overlap."""
        return guarded_workload(made)

    def test_the_same_weights_at_every_call(self, workload: Workload) -> None:
        assert weights_digest(build_model(workload)) == weights_digest(build_model(workload))

    def test_samples_of_every_role_go_through_the_model(self, workload: Workload) -> None:
        model = build_model(workload)
        for role in ROLES:
            inputs, targets = next(iter(in_batches(getattr(workload.data, role), 2)))
            with torch.no_grad():
                outputs = call(model, inputs)
            assert torch.as_tensor(workload.loss(outputs, targets)).shape == ()
            assert torch.as_tensor(workload.score(outputs, targets)).shape in [(), (length(targets),)]

    def test_two_runs_of_the_model_agree(self, workload: Workload) -> None:
        model = build_model(workload)
        with torch.no_grad():
            first, second = (tensors(call(model, workload.example_inputs)) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))

    def test_something_can_be_cut(self, workload: Workload) -> None:
        assert find_groups(build_model(workload), workload.example_inputs).groups

    def test_it_exports_to_onnx(self, workload: Workload) -> None:
        assert export(build_model(workload), workload.example_inputs, workload.dynamic_axes)
