from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from conftest import make_workload
from secateur.errors import DataUnreadable, EvaluationFailed, WorkloadError, first_line
from secateur.workloads.calls import calling, guarded
from secateur.workloads.loading import guarded_workload


def unlucky(*_):
    raise ValueError("no such label\nand more")


HERE = f"{Path(__file__).name}:{unlucky.__code__.co_firstlineno + 1}"


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


def test_one_line_with_the_place_in_the_users_file():
    with pytest.raises(WorkloadError) as caught:
        guarded(unlucky, "The workload's score")(1)
    said = str(caught.value)
    assert said.startswith("The workload's score raised ValueError: no such label (at ")
    assert said.endswith(HERE + ")")
    assert "\n" not in said


def test_the_place_is_theirs_though_a_library_raised():
    with pytest.raises(WorkloadError, match=r"raised RuntimeError: .*\(at .*test_calls.py:\d+\)"), calling("The model"):
        torch.nn.functional.conv2d(torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 1, 1))


def test_a_function_that_takes_other_arguments_is_named_by_its_definition():
    def alone():
        pass

    line = alone.__code__.co_firstlineno
    with pytest.raises(
        WorkloadError, match=rf"takes 0 positional arguments but 1 was given \(at .*test_calls.py:{line}\)"
    ):
        guarded(alone, "The metric 'm'")(3)


def test_leaving_the_process_is_an_error():
    with pytest.raises(WorkloadError, match=r"The loss called sys.exit\(0\) \(at .*test_calls.py"), calling("The loss"):
        sys.exit(0)


def test_our_own_errors_and_ctrl_c_pass():
    with pytest.raises(EvaluationFailed, match="^as it is$"), calling("The loss"):
        raise EvaluationFailed("as it is")
    with pytest.raises(KeyboardInterrupt), calling("The loss"):
        raise KeyboardInterrupt


def test_an_exception_that_cannot_be_shown():
    assert first_line(Mute()) == "its message cannot be shown: __str__ raises RuntimeError"
    with pytest.raises(WorkloadError, match="The loss raised Mute: its message cannot be shown"), calling("The loss"):
        raise Mute


def test_a_workloads_functions_are_guarded_and_its_samples_have_names():
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 50

        def __getitem__(self, index):
            return unlucky() if index == 37 else (torch.zeros(3, 8, 8), 1)

    made = make_workload()
    broken = guarded_workload(
        type(made)(
            **{
                **vars(made),
                "loss": unlucky,
                "score": unlucky,
                "augment": unlucky,
                "data": type(made.data)(**{**vars(made.data), "search": Broken()}),
            }
        )
    )
    for name in ("loss", "score", "augment"):
        with pytest.raises(WorkloadError, match=f"The workload's {name} raised ValueError: no such label"):
            getattr(broken, name)(torch.zeros(1), torch.zeros(1))
    with pytest.raises(DataUnreadable, match=f"The data role 'search': sample 37 raised ValueError.*{HERE}"):
        broken.data.search[37]
