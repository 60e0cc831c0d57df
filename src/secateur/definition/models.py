"""What may stand in the YAML files. The field descriptions are the reference: `secateur schema` prints them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from secateur.definition.declared import Declared, Name
from secateur.definition.devices import DeviceDefinition, LocalDevice
from secateur.redaction import has_credentials

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
LOWER_GOALS = ("max_drop", "at_least")
"""Goals for a metric that is maximised."""
UPPER_GOALS = ("at_most", "speedup_at_least", "smaller_by")
"""Goals for a metric that is minimised."""


class WorkloadReference(Declared):
    """The factory that makes model and data. Further keys are passed to it as keyword arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    factory: str = Field(
        description="`module:attribute` or `path/to/file.py:attribute`; the path is relative to the project.",
        examples=["secateur.workloads.digits:workload", "my_model.py:workload"],
    )

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the factory."""
        return dict(self.model_extra or {})

    @property
    def as_written(self) -> dict[str, Any]:
        """Factory and options with their `${NAME}` unexpanded: this is what may be logged."""
        written = self._source.written(self._path) if self._source else None
        return dict(written) if isinstance(written, dict) else {"factory": self.factory, **self.options}


class GroupRule(Declared):
    """What may be done to the groups that match. The first rule that matches a group decides."""

    match: str = Field("*", description="Glob on group names (a group is named after its root layer), e.g. `layer3.*`.")
    types: list[str] = Field(
        default=["Conv2d", "Linear"], min_length=1, description="Class names of the root layers that this rule covers."
    )
    methods: list[str] = Field(
        min_length=1, description="Saliency criteria among which the search chooses; see `secateur list methods`."
    )
    removed: tuple[Fraction, Fraction] = Field(
        (0.0, 0.8),
        description="Lowest and highest removed fraction of the group's channels. With a lowest fraction above 0 the "
        "group cannot stay whole.",
    )
    multiple_of: Annotated[int, Field(ge=1, le=1_000_000)] | Literal["device"] = Field(
        1,
        description="Channel counts that stay are multiples of this (the whole width need not be). Kernels commonly compute "
        "blocks of 8 or 16; `device` measures the block of the declared device (half of it, and so on, for groups no wider).",
    )
    at_least: int = Field(1, ge=1, le=1_000_000, description="Channels that must stay.")

    @field_validator("removed")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError(f"the lowest removed fraction ({value[0]}) must be below the highest ({value[1]})")
        return value


class SearchSpaceDefinition(Declared):
    """Which groups may be cut, how much, and by which methods."""

    groups: list[GroupRule] = Field(min_length=1, description="Rules; the first that matches a group decides.")
    exclude: list[str] = Field(default=[], description="Globs on layer names: a group with such a layer stays whole.")


class ConstraintDefinition(Declared):
    """What a model must hold to be registered. At least one goal; several may stand together."""

    max_drop: float | None = Field(
        None,
        ge=0.0,
        description="Largest loss against the dense model after recovery, on selection data, as shown by its 95 % bound.",
    )
    at_least: float | None = Field(None, description="Lowest value, in the metric's own unit; for what is maximised.")
    at_most: float | None = Field(
        None,
        description="Highest value, in the metric's own unit (latency: of the dense model's); for what is minimised.",
    )
    speedup_at_least: float | None = Field(
        None,
        gt=0.0,
        description="The dense model's value over this one's is at least that: 2 means at most half of it.",
    )
    smaller_by: float | None = Field(
        None, gt=0.0, lt=1.0, description="Share of the dense model's value that must go: 0.4 leaves at most 60 %."
    )
    before_recovery: float | None = Field(
        None,
        ge=0.0,
        description="Largest loss during the search. Default: the loss that is allowed in the end where there is no recovery; with "
        "recovery eight times that, since fine-tuning brings most of it back.",
    )

    @property
    def goals(self) -> dict[str, float]:
        """The goals that are set, by name."""
        values = {name: getattr(self, name) for name in (*UPPER_GOALS, *LOWER_GOALS)}
        return {name: value for name, value in values.items() if value is not None}

    @model_validator(mode="after")
    def _says_something(self) -> ConstraintDefinition:
        if not self.goals:
            raise ValueError(f"a constraint needs a goal: one of {', '.join((*LOWER_GOALS, *UPPER_GOALS))}")
        return self


class PredictorDefinition(Declared):
    """A latency predictor, fitted on the device before the search. What it predicts never enters a front."""

    models: int = Field(12, ge=6, le=10_000, description="Networks that are measured to calibrate it.")


class EvaluatorDefinition(Declared):
    """What is measured, where and how."""

    objectives: dict[str, Literal["maximize", "minimize"]] = Field(
        min_length=1, description="Metric → direction; see `secateur list metrics`."
    )
    constraints: dict[str, ConstraintDefinition] = Field(default={}, description="Metric → what must hold.")
    metrics: dict[str, str] = Field(
        default={}, description="The project's own metrics: name → `module:function` or `file.py:function`."
    )
    runtime: str = Field("onnxruntime", description="What runs the exported model; see `secateur list runtimes`.")
    runtime_options: dict[str, str] = Field(
        default={}, description="The runtime's own options, e.g. `{provider: cuda}`; see `secateur list runtimes`."
    )
    device: DeviceDefinition = Field(
        default_factory=lambda: LocalDevice(),
        description="Where it is measured: `local` (this host), or a block with `kind: ssh` or `kind: adb`.",
    )
    threads: int = Field(1, ge=1, le=256, description="Threads of the runtime, for accuracy and latency alike.")
    batch: int = Field(
        1, ge=1, le=65_536, description="Samples per run of the exported model, for accuracy and latency alike."
    )
    calibration_images: int = Field(
        64,
        ge=0,
        le=1_000_000,
        description="Calibration samples for batch-norm recalibration of every candidate; 0 turns it off.",
    )
    deadline: float = Field(
        300.0, gt=0.0, le=1e6, description="Seconds that the device gives one measurement; then it counts as failed."
    )
    device_samples: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Samples that the device itself scores (metric `device_accuracy`): of search data in the search, of selection "
        "data for finalists; 0 for none.",
    )
    energy_command: str | None = Field(
        None,
        description="Command on the device that prints the joules spent so far. Default: RAPL, where it is readable.",
    )
    predictor: PredictorDefinition | None = Field(
        None,
        description="For slow devices: measure some networks there, predict the latency of the others, and measure only "
        "candidates that may still reach the front. Default: every candidate is measured.",
    )


class BaselinesDefinition(Declared):
    """Baselines beside those that always run (dense, uniform, random, global magnitude)."""

    small_dense: bool = Field(
        False,
        description="Also train a small network from scratch: the widths of the knee, new weights, as long as a finalist is tuned.",
    )


class LimitsDefinition(Declared):
    """What one candidate may use before it counts as failed."""

    seconds: float = Field(600.0, gt=0.0, le=1e6, description="Wall time of one evaluation; then its worker is ended.")
    memory_gb: float | None = Field(
        None, gt=0.0, le=1e6, description="Private memory of a worker, in GB (Linux). Default: no limit."
    )


class FidelitiesDefinition(Declared):
    """Evaluate cheaply first; drop candidates that cannot reach the front.

    Source: Jamieson & Talwalkar 2016 (successive halving), arXiv:1502.07943.
    """

    first_images: Fraction = Field(
        0.25,
        description="Share of the search data after which a candidate that cannot reach the front (99 % confidence) is given up; "
        "0 scores every candidate on all of it.",
    )
    keep: int = Field(
        3, ge=2, description="After the search: one in this many goes on to the next rung, by non-dominated rank."
    )
    calibration_images: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="First rung after the search: recalibration on this many samples. Default: this rung is left out.",
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Last rung before recovery: this many steps of fine-tuning. Default: this rung is left out.",
    )


class NniRemoteDefinition(Declared):
    """A host on which NNI runs the trials, over ssh with a key. Password authentication is not supported."""

    host: Name = Field(description="Name or address.")
    port: int = Field(22, ge=1, le=65535, description="Port of its ssh server.")
    user: Name = Field(description="Login on the host.")
    key_file: str = Field(
        description="Private key without a passphrase; a path on this machine, relative to the project."
    )
    known_hosts: str = Field(
        "~/.ssh/known_hosts",
        description="File on this machine with the host's key; a host whose key is not in it is refused.",
    )
    python: str = Field(
        description="Interpreter on the remote host, with secateur[nni] of this version; nothing is installed there."
    )
    project: str = Field(
        description="The project's folder on the remote host, with the same workload, weights and data."
    )

    @field_validator("python", "project")
    @classmethod
    def _absolute(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError(f"'{value}' must be an absolute path, as the host has it")
        return value


class NniDefinition(Declared):
    """What only an NNI experiment has."""

    assessor: Literal["medianstop"] | None = Field(
        None,
        description="Ends a trial whose figures after `fidelities.first_images` are below the median of the earlier ones.",
    )
    port: int = Field(0, ge=0, le=65535, description="Port of NNI's web interface, on loopback only; 0 for a free one.")
    remote: NniRemoteDefinition | None = Field(None, description="Where trials run. Default: on this machine.")


class SearchDefinition(Declared):
    """How the space is searched, and when the search ends."""

    engine: Literal["optuna", "nni"] = Field(
        "optuna",
        description="What runs the search: Optuna, or an NNI experiment (extra `nni`), mirrored into the Optuna study.",
    )
    sampler: str = Field("tpe", description="See `secateur list samplers`.")
    trials: int = Field(
        60,
        ge=1,
        le=1_000_000,
        description="Candidates that are evaluated, baselines included; repeats, what a cheap constraint rejects and the "
        "probes of the sensitivity sweep are not counted.",
    )
    minutes: float | None = Field(
        None, gt=0.0, le=1e6, description="Minutes after which the search ends, restarts included."
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="The search ends when this many candidates in a row have added no hypervolume.",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the sampler.")
    workers: int = Field(1, ge=1, le=1024, description="Processes that evaluate candidates side by side.")
    warm_start: Name | None = Field(
        None, description="Id of an earlier run of this project: the front it found is evaluated first."
    )
    baselines: BaselinesDefinition = Field(default_factory=lambda: BaselinesDefinition())
    limits: LimitsDefinition = Field(default_factory=lambda: LimitsDefinition())
    fidelities: FidelitiesDefinition = Field(default_factory=lambda: FidelitiesDefinition())
    nni: NniDefinition | None = Field(None, description="Settings of the NNI experiment; only with `engine: nni`.")

    @model_validator(mode="after")
    def _nni_is_used(self) -> SearchDefinition:
        if self.nni is not None and self.engine != "nni":
            raise ValueError("'nni' is only for NNI's experiments: add 'engine: nni', or leave it out")
        if self.nni is not None and self.nni.assessor is not None and self.fidelities.first_images == 0:
            raise ValueError("an assessor judges by a first part of the data: set fidelities.first_images above 0")
        return self


class DistillDefinition(Declared):
    """Knowledge distillation from the dense model (Hinton et al. 2015, arXiv:1503.02531)."""

    temperature: float = Field(4.0, ge=1e-3, le=1e6, description="Softens both distributions.")
    weight: float = Field(
        0.9, ge=0.0, le=1.0, description="Share of the distillation loss; the rest is the workload's loss."
    )


class RecoverDefinition(Declared):
    """How the finalists are fine-tuned."""

    epochs: int = Field(3, ge=1, le=100_000, description="Passes over the training data.")
    finalists: int = Field(
        4, ge=1, le=10_000, description="Front members that are fine-tuned, by hypervolume contribution."
    )
    learning_rate: float = Field(
        0.02, gt=0.0, le=1000.0, description="Peak of the cosine schedule (SGD, Nesterov momentum 0.9)."
    )
    batch: int = Field(128, ge=2, le=65_536, description="Samples per step.")
    weight_decay: float = Field(
        5e-4, ge=0.0, le=1000.0, description="L2 penalty on weights with more than one dimension."
    )
    distill: DistillDefinition | None = Field(
        DistillDefinition(temperature=4.0, weight=0.9), description="Distillation from the dense model; null for none."
    )


class RegisterDefinition(Declared):
    """Where the survivors go."""

    name: Name = Field(description="Name of the registered model in MLflow.")
    alias: Name = Field("candidate", description="Alias of the version at the knee of the front.")
    tracking_uri: str | None = Field(
        None,
        description="MLflow tracking server. Default: the environment variable MLFLOW_TRACKING_URI, else the embedded SQLite "
        "database in `mlruns/`. Credentials belong into MLflow's own environment variables.",
    )

    @field_validator("tracking_uri")
    @classmethod
    def _no_credentials(cls, value: str | None) -> str | None:
        if value and has_credentials(value):
            raise ValueError(
                "a tracking URI must not carry credentials; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead"
            )
        return value


class PipelineDefinition(Declared):
    """From a trained model to registered, verified, smaller ones."""

    name: Name = Field(description="Names the runs, the study and the experiment.")
    workload: WorkloadReference
    search_space: SearchSpaceDefinition
    evaluator: EvaluatorDefinition
    search: SearchDefinition = Field(default_factory=lambda: SearchDefinition())
    recover: RecoverDefinition | None = Field(
        default_factory=lambda: RecoverDefinition(), description="Fine-tuning of the finalists; null for none."
    )
    register_as: RegisterDefinition | None = Field(
        None, alias="register", description="Registration in MLflow; left out, the models stay in the run's folder."
    )

    @model_validator(mode="after")
    def _training_is_declared(self) -> PipelineDefinition:
        if self.recover is None and (self.search.fidelities.steps or self.search.baselines.small_dense):
            raise ValueError("search.fidelities.steps and search.baselines.small_dense train: they need 'recover'")
        return self

    def as_written(self) -> dict[str, Any]:
        """The whole definition with defaults filled in and references spelled out; environment values stay unexpanded."""
        return {**self.model_dump(mode="json", by_alias=True), "workload": self.workload.as_written}
