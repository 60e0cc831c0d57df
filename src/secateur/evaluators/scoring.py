"""Running networks on this host over the data roles, and what their outputs amount to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from secateur.errors import EvaluationFailed, WorkloadError
from secateur.evaluators.devices.work import Batches
from secateur.evaluators.metrics import Context, Metric, measure_all
from secateur.evaluators.model_files import ModelFiles, Network
from secateur.evaluators.on_device import Answer
from secateur.evaluators.role_batches import role_batches
from secateur.evaluators.runtimes import Host, HostSession
from secateur.evaluators.sample_scores import Scores, scores_of
from secateur.records import Measurement, Workload
from secateur.workloads.pytrees import PyTree, filled, length, rows
from secateur.workloads.roles import drawn


@dataclass(frozen=True)
class Samples:
    """One data role, in batches as the runtime takes them, with the dense model's outputs on it."""

    batches: Batches
    targets: PyTree
    dense_outputs: PyTree


class Scoring:
    """Runs networks beside one dense network, whose file is given."""

    def __init__(self, workload: Workload, host: Host, batch: int, files: ModelFiles) -> None:
        """batch: samples per run."""
        self.workload, self.host = workload, host
        self._batch, self._files = batch, files
        self._samples: dict[str, Samples] = {}

    def samples(self, role: str) -> Samples:
        """A data role, its targets read once. Its samples come in a drawn order: the first of them stand for all."""
        if role not in self._samples:
            # What the collate function pads has one length only where all samples are collated at once.
            dataset, whole = drawn(getattr(self.workload.data, role)), bool(self.workload.dynamic_axes)
            batches, targets = role_batches(dataset, self._batch, whole=whole)
            self._samples[role] = Samples(
                batches, targets, self.outputs(self._files.session(self._files.dense), batches)
            )
        return self._samples[role]

    def compared(self, files: tuple[bytes, bytes], role: str) -> dict[str, tuple[Scores, Scores]]:
        """See `Evaluator.compared`."""
        samples = self.samples(role)
        outputs = [self.outputs(self.host.open(file), samples.batches) for file in files]

        def scored(answers: PyTree, numbers: list[int]) -> Scores:
            some = torch.tensor(numbers)
            return scores_of(self.workload, rows(answers, some), rows(samples.targets, some))

        found: dict[str, tuple[Scores, Scores]] = {}
        for name, numbers in {"": list(range(length(samples.targets))), **self._slices(role)}.items():
            try:
                found[name] = scored(outputs[0], numbers), scored(outputs[1], numbers)
            except WorkloadError:
                if not name:
                    raise  # some scores are none for a few samples: an area under a curve, of one class
        return found

    def _slices(self, role: str) -> dict[str, list[int]]:
        """The slices of a data role by name, each with the numbers of its samples as `samples` has them; none without any."""
        name_of, found = self.workload.slices, dict[str, list[int]]()
        if name_of is not None:
            samples = drawn(getattr(self.workload.data, role))
            for number in range(len(samples)):
                found.setdefault(str(name_of(samples[number])), []).append(number)
        return found

    def outputs(self, session: HostSession, batches: Batches) -> PyTree:
        """What a network returns for batches, nested as the dense module's outputs.

        Raises EvaluationFailed where the workload's `output` is not finite.
        """
        columns = zip(*(session.run(batch) for batch in batches), strict=True)
        outputs = filled(self._files.outputs, [torch.from_numpy(np.concatenate(parts)) for parts in columns])
        if not torch.isfinite(self.workload.output(outputs)).all():
            raise EvaluationFailed("the outputs are not finite")
        return outputs

    def scores(self, outputs: PyTree, role: str) -> Scores:
        """What outputs on a whole data role score."""
        return scores_of(self.workload, outputs, self.samples(role).targets)


@dataclass(frozen=True)
class View:
    """One network on one data role.

    metrics: every metric by name. host: fingerprint of what the outputs come from. resamples: see `scores_of`.
    """

    workload: Workload
    network: Network
    samples: Samples
    metrics: Mapping[str, Metric]
    host: str
    resamples: int

    def context(self, outputs: PyTree, answer: Answer | None) -> Context:
        """What metrics look at. outputs: on the first samples, or on all; answer: the device's, if it was asked."""
        known = slice(length(outputs))
        dense, targets = rows(self.samples.dense_outputs, known), rows(self.samples.targets, known)
        return Context(self.workload, self.network, outputs, dense, targets, self.host, answer, self.resamples)

    def figures(self, context: Context, names: Sequence[str]) -> dict[str, Measurement]:
        """The named metrics. Raises EvaluationFailed where one of them is not finite."""
        return measure_all(context, names, self.metrics)
