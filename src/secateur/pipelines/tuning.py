"""From a finalist to its tuned network: cut, train, and where a definition wants it rank again what is left and cut further."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from secateur.compression.compensation.gram import grams_of
from secateur.compression.composition import after, composed
from secateur.compression.masks import by_row, mask_of
from secateur.compression.plan import apply
from secateur.compression.resolution import resolve
from secateur.compression.transforms import TRANSFORMS
from secateur.definition import RecoverDefinition
from secateur.evaluators.cutting import Cutting
from secateur.pipelines.finalists import Finalist
from secateur.pipelines.preparation import Prepared
from secateur.pipelines.ranking import scores_of
from secateur.records import Candidate, CompressedModel, Edit, Group, Plan
from secateur.recovery.answers import Answers
from secateur.recovery.fine_tune import Training, Tuned, fine_tune
from secateur.recovery.masks import kept, learned
from secateur.recovery.trainers import train_with

OnEpoch = Callable[[float, float], None]


@dataclass(frozen=True)
class Tuning:
    """Tunes finalists. device: what they are trained on."""

    prepared: Prepared
    device: str
    _answers: Answers = field(default_factory=Answers, init=False, repr=False, compare=False)

    def begun(self, finalist: Finalist, step: int, before: CompressedModel | None) -> CompressedModel:
        """The network that a step of training starts from. step: from 1. before: what the step before it has left."""
        prepared, settings = self.prepared, finalist.settings
        candidate = self._candidate(finalist, step)
        network = finalist.begun(candidate) if before is None else self._cut_further(before, candidate)
        if settings is None or not settings.rewind:
            return network
        early = prepared.workload.build_early
        assert early is not None  # noqa: S101 # checked before the run
        return replace(network, module=apply(early(), network.plan))

    def trained(
        self,
        network: CompressedModel,
        settings: RecoverDefinition,
        goal: Candidate,
        checkpoint: Path,
        on_epoch: OnEpoch,
    ) -> tuple[CompressedModel, Tuned]:
        """One step of training, which goes on where it was begun. goal: what is to be done to the network in the end."""
        prepared, seed = self.prepared, self.prepared.definition.search.seed
        if prepared.trainer is not None:
            training = Training(self.device, seed, checkpoint, on_epoch)
            tuned = train_with(
                prepared.trainer,
                network.module,
                prepared.model,
                prepared.workload,
                settings,
                training,
                network.plan.masked,
            )
            return CompressedModel(goal, network.plan, tuned.module), tuned
        masks, edited = kept(network.plan.masked), list[tuple[Group, Edit]]()
        if settings.masks != "kept":
            edited = self._masked(goal, network.plan)
            masks = learned(edited, settings.masks)
        training = Training(self.device, seed, checkpoint, on_epoch, masks, scored=True, answers=self._answers)
        tuned = fine_tune(network.module, prepared.model, prepared.workload, settings, training)
        plan = network.plan
        if edited:
            plan = composed(prepared.model, plan, _zeros(tuned.module, [group for group, _ in edited]))
        return CompressedModel(goal, plan, tuned.module), tuned

    def _candidate(self, finalist: Finalist, step: int) -> Candidate:
        """What is done to the network before a step of training.

        Each step takes the same share of what is left of a group. Masks that are chosen in training begin without zeros.
        """
        settings = finalist.settings
        if settings is None:
            return finalist.candidate
        widths = {group.name: group.width for group in self.prepared.space.groups}

        def now(group: str, edit: Edit) -> Edit:
            if settings.masks != "kept":
                return edit if TRANSFORMS[edit.transform].stage != "pattern" else edit.keeping(1.0, widths[group])
            if step == settings.steps:
                return edit
            return edit.keeping(edit.kept(widths[group]) ** (step / settings.steps), widths[group])

        edits = finalist.candidate.edits
        return Candidate({group: tuple(now(group, edit) for edit in done) for group, done in edits.items()})

    def _cut_further(self, before: CompressedModel, candidate: Candidate) -> CompressedModel:
        """A tuned network, ranked again by its own weights, cut and repaired."""
        prepared, evaluator = self.prepared, self.prepared.definition.evaluator
        groups = self._left(candidate, before.plan)
        cutting = Cutting(before.module, prepared.workload)
        if evaluator.refit_images:
            cutting.grams = grams_of(before.module, groups, prepared.workload, evaluator.refit_images)
        methods = {edit.method for edits in candidate.edits.values() for edit in edits}
        scores = scores_of(before.module, groups, sorted(methods), prepared.workload, cutting.grams)
        plan = resolve(candidate, groups, scores)
        module = cutting.cut(plan, evaluator.calibration_images)
        return CompressedModel(candidate, composed(prepared.model, before.plan, plan), module)

    def _left(self, candidate: Candidate, plan: Plan) -> list[Group]:
        """The groups that a candidate edits, as they are in the network that a plan has cut."""
        groups = (group for group in self.prepared.space.groups if candidate.edits.get(group.name))
        return [left for group in groups if (left := after(group, plan)) is not None]

    def _masked(self, candidate: Candidate, plan: Plan) -> list[tuple[Group, Edit]]:
        """The groups whose weights become zero, as they are in a cut network, and how."""
        return [
            (group, edit)
            for group in self._left(candidate, plan)
            for edit in candidate.edits[group.name]
            if group.weights and TRANSFORMS[edit.transform].stage == "pattern"
        ]


def _zeros(module: nn.Module, groups: list[Group]) -> Plan:
    """The weights of groups that are zero, as masks."""
    parts = [own for group in groups for own in group.weights]
    layers = {own.layer: module.get_submodule(own.layer) for own in parts}
    return Plan(
        tuple(
            mask_of(own, by_row(layers[own.layer], layers[own.layer].weight)[[*own.rows]] == 0)  # type: ignore[arg-type] # a layer with weights
            for own in parts
        )
    )
