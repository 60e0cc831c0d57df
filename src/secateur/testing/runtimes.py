"""What every runtime promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from secateur.agent.runtimes import (
    Available,
    Batch,
    Runtime,
    RuntimeFailure,
    Session,
    Settings,
    Unavailable,
    check_options,
)
from secateur.errors import EvaluationFailed
from secateur.evaluators.formats import FORMATS, ONNX, convert
from secateur.evaluators.onnx_export import export
from secateur.evaluators.runtimes import RUNTIMES
from secateur.records import N_M, WEIGHTS
from secateur.testing.examples import images, network

Open = Callable[[bytes], Session]
Ready = Callable[..., Session]
_WRITTEN: dict[tuple[str, str, str], bytes] = {}


class Difference(nn.Module):
    """One input less the other."""

    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        """(n, k) twice → (n, k)."""
        return one - two


class TotalAndHalves(nn.Module):
    """Two outputs of different shapes."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(n, k) → (n, 1) and (n, k)."""
        return {"total": x.sum(1, keepdim=True), "halves": x / 2}


class AsFloats(nn.Module):
    """Whole numbers as floats."""

    def forward(self, ids: Tensor) -> Tensor:
        """(n, k) → (n, k)."""
        return ids.float()


class DependsOnTheData(nn.Module):
    """A network that cannot be traced."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, k) → (n, k)."""
        return x if float(x.sum()) > 0 else -x


def arrays(*tensors: Tensor) -> list[np.ndarray[Any, Any]]:
    """Tensors as a runtime takes them."""
    return [x.numpy() for x in tensors]


class RuntimeContract:
    """Subclass it, and set `name` (or override it as a fixture) to the runtime's name in the registry.

    One that cannot be used here is skipped with its reason.
    """

    name: str

    @pytest.fixture
    def runtime_name(self) -> str:
        """The name."""
        return self.name

    @pytest.fixture
    def runtime(self, runtime_name: str) -> Runtime:
        """The entry of the registry."""
        return RUNTIMES[runtime_name]

    @pytest.fixture
    def opened(self, runtime: Runtime, tmp_path: Path) -> Open:
        """A file's content → session, where the runtime is here."""
        found = runtime.probe(runtime.chosen({}))
        if isinstance(found, Unavailable):
            pytest.skip(found.reason)

        def open_(content: bytes) -> Session:
            file = tmp_path / f"model.{runtime.format}"
            file.write_bytes(content)
            return runtime.open(file, Settings(1, cache=tmp_path / "cache"))

        return open_

    @pytest.fixture
    def ready(self, runtime: Runtime, opened: Open) -> Ready:
        """A module, its inputs → an opened session. Files are made once for all runtimes."""

        def open_(module: nn.Module, *inputs: Tensor) -> Session:
            key = (type(module).__name__, str([x.shape for x in inputs]), runtime.format)
            if key not in _WRITTEN:
                if runtime.format == ONNX:
                    _WRITTEN[key] = export(module.eval(), inputs)
                elif reason := FORMATS[runtime.format].missing:
                    pytest.skip(reason)
                else:
                    _WRITTEN[key] = convert(runtime.format, module.eval(), inputs)
            return opened(_WRITTEN[key])

        return open_

    def test_it_says_whether_it_can_be_used_with_every_option(self, runtime: Runtime) -> None:
        defaults = runtime.chosen({})
        for option, values in {"": ("",), **runtime.options}.items():
            for value in values:
                found = runtime.probe({**defaults, option: value} if option else defaults)
                assert isinstance(found, (Available, Unavailable))
                assert found.version if isinstance(found, Available) else found.reason
        assert runtime.summary

    def test_its_format_is_one_that_files_can_be_made_in(self, runtime: Runtime) -> None:
        assert runtime.format in (ONNX, *FORMATS)

    def test_it_says_when_it_skips_zeros_of_transforms_that_leave_some(self, runtime: Runtime) -> None:
        for option, values in runtime.options.items():
            for value in values:
                skipped = runtime.skips(runtime.chosen({option: value}))
                assert skipped.keys() <= {WEIGHTS, N_M}
                assert all(skipped.values())

    def test_options_that_it_does_not_have_are_named(self, runtime_name: str, runtime: Runtime) -> None:
        assert check_options(runtime_name, {}) is None
        assert f"{runtime_name} has no option 'colour'" in str(check_options(runtime_name, {"colour": "red"}))
        for option, values in runtime.options.items():
            assert check_options(runtime_name, {option: values[-1]}) is None
            assert values[0] in str(check_options(runtime_name, {option: "red"}))

    @pytest.mark.parametrize("batch", [1, 3])
    def test_it_says_what_torch_says(self, batch: int, runtime: Runtime, ready: Ready) -> None:
        model, x = network(), images(batch, seed=7)
        with torch.no_grad():
            expected = model(x).numpy()
        (found,) = ready(model, x).run(arrays(x))
        assert np.abs(found - expected).max() <= runtime.rounding({}) * np.abs(expected).max()

    def test_an_output_is_not_overwritten_by_the_next_run(self, ready: Ready) -> None:
        session = ready(network(), images(1))
        (first,) = session.run(arrays(images(1, seed=1)))
        kept = first.copy()
        (second,) = session.run(arrays(images(1, seed=2)))
        assert not np.array_equal(first, second)
        np.testing.assert_array_equal(first, kept)
        np.testing.assert_array_equal(session.run(arrays(images(1, seed=1)))[0], kept)

    def test_inputs_keep_their_order(self, ready: Ready) -> None:
        one, two = torch.full((1, 2), 5.0), torch.full((1, 2), 3.0)
        (found,) = ready(Difference(), one, two).run(arrays(one, two))
        np.testing.assert_array_equal(found, np.full((1, 2), 2, np.float32))

    def test_outputs_keep_their_order(self, ready: Ready) -> None:
        x = torch.tensor([[5.0, 3.0]])
        total, halves = ready(TotalAndHalves(), x).run(arrays(x))
        np.testing.assert_array_equal(total, [[8]])
        np.testing.assert_array_equal(halves, [[2.5, 1.5]])

    def test_the_order_is_the_files_and_not_the_alphabets(self, runtime: Runtime, opened: Open) -> None:
        if runtime.format != ONNX:
            pytest.skip("we choose the names in files that we convert")
        places = [helper.make_tensor_value_info(which, TensorProto.FLOAT, ["n", 2]) for which in ("zeta", "alpha", "y")]
        graph = helper.make_graph([helper.make_node("Sub", ["zeta", "alpha"], ["y"])], "g", places[:2], places[2:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        one, two = np.full((1, 2), 5, np.float32), np.full((1, 2), 3, np.float32)
        np.testing.assert_array_equal(opened(model.SerializeToString()).run([one, two])[0], one - two)

    def test_whole_numbers_go_in(self, ready: Ready) -> None:
        ids = torch.tensor([[1, 2, 70_000]])
        (found,) = ready(AsFloats(), ids).run(arrays(ids))
        np.testing.assert_array_equal(found, ids.numpy().astype(np.float32))

    def test_what_is_no_model_is_refused_in_one_line(self, opened: Open) -> None:
        with pytest.raises(RuntimeFailure, match=r"does not load the model: .+") as refused:
            opened(b"this is no model")
        assert "\n" not in str(refused.value)

    def test_what_does_not_fit_is_refused(self, ready: Ready) -> None:
        session = ready(network(), images(1))
        with pytest.raises(RuntimeFailure, match="does not run the model"):
            session.run([np.zeros((1, 7, 8, 8), np.float32)])

    def test_computations_are_in_float32(self, ready: Ready) -> None:
        """A dot product of many terms that bfloat16 would round away."""
        terms = 4096
        layer = nn.Linear(terms, 1, bias=False)
        nn.init.constant_(layer.weight, 1 + 2**-12)
        (found,) = ready(layer, torch.ones(1, terms)).run([np.ones((1, terms), np.float32)])
        assert found[0, 0] == pytest.approx(terms * (1 + 2**-12), rel=1e-5)

    def test_blocks_take_the_batches_in_turn_and_time_each_run(
        self, runtime: Runtime, ready: Ready, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not runtime.in_process:
            pytest.skip("one process times a whole block, of one batch")
        session = ready(network(), images(1))
        seen = []
        original = session.run

        def watched(inputs: Batch) -> Batch:
            seen.append(float(inputs[0][0, 0, 0, 0]))
            return original(inputs)

        monkeypatch.setattr(session, "run", watched)
        batches = [[np.full((1, 3, 8, 8), value, np.float32)] for value in (0.0, 1.0, 2.0)]
        ticks = iter(range(100))
        times = session.block(batches, 2, 4, clock=lambda: next(ticks))
        assert seen == [2.0, 0.0, 1.0, 2.0]
        assert times == [1, 1, 1, 1]

    def test_what_cannot_be_converted_is_said(self, runtime: Runtime) -> None:
        if runtime.format == ONNX:
            pytest.skip("nothing is converted")
        if reason := FORMATS[runtime.format].missing:
            pytest.skip(reason)
        with pytest.raises(EvaluationFailed, match=f"cannot be converted to {runtime.format}: .+"):
            convert(runtime.format, DependsOnTheData(), (torch.ones(1, 2),))
