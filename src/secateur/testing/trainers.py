"""What every trainer promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from secateur.definition import RecoverDefinition
from secateur.records import Workload
from secateur.recovery.fine_tune import Training, Tuned
from secateur.recovery.trainers import Budget, Function, Save, Trainer, TrainingData, train_with
from secateur.testing import examples
from secateur.workloads.loading import build_model, guarded_workload


class _Killed(BaseException):
    """Stands for the end of the process."""


class TrainerContract:
    """Subclass it and override the fixture `function` with your trainer; `workload` where yours needs another than images."""

    settings = RecoverDefinition(epochs=2)

    @pytest.fixture
    def function(self) -> Function:
        """The trainer."""
        raise NotImplementedError

    @pytest.fixture
    def workload(self) -> Workload:
        """What is trained: a classifier of images (3, 8, 8), five classes."""
        return examples.workload()

    def trained(self, function: Function, workload: Workload, folder: Path) -> tuple[nn.Module, Tuned]:
        """A network with zeros in its layers of many weights, before and after the training."""
        workload = guarded_workload(workload)
        student, teacher = build_model(workload), build_model(workload)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for layer in self.masked(student):
                weight = student.get_submodule(layer).weight
                assert isinstance(weight, torch.Tensor)
                weight.masked_fill_(torch.rand(weight.shape, generator=generator) < 0.5, 0.0)
        training = Training(checkpoint=folder / "checkpoint.safetensors")
        trainer = Trainer("trainer", function)
        return student, train_with(trainer, student, teacher, workload, self.settings, training, self.masked(student))

    def masked(self, model: nn.Module) -> list[str]:
        """Layers that have zeros."""
        return [name for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]

    def test_it_trains_and_zeros_stay(self, function: Function, workload: Workload, tmp_path: Path) -> None:
        before, tuned = self.trained(function, workload, tmp_path)
        for layer in self.masked(before):
            was, now = before.get_submodule(layer).weight, tuned.module.get_submodule(layer).weight
            assert isinstance(was, torch.Tensor)
            assert isinstance(now, torch.Tensor)
            assert not now[was == 0].any()
        changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), tuned.module.parameters(), strict=True)]
        assert any(changed)

    def test_killed_after_it_has_saved_twice_it_goes_on(
        self, function: Function, workload: Workload, tmp_path: Path
    ) -> None:
        attempts, saved = list[object](), list[object]()

        def dying(model: nn.Module, teacher: nn.Module, data: TrainingData, budget: Budget, save: Save) -> nn.Module:
            attempts.append(budget.progress)

            def last(model: nn.Module, progress: object) -> None:
                save(model, progress)
                saved.append(progress)
                if len(saved) == 2:
                    raise _Killed

            return function(model, teacher, data, budget, last)

        try:
            self.trained(dying, workload, tmp_path)
        except _Killed:
            self.trained(dying, workload, tmp_path)
            assert attempts[1] is not None
        assert attempts[0] is None
