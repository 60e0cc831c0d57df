"""Contract suites for plug-ins: subclass the one of your kind, and pytest runs what every such plug-in promises.

They need pytest, which secateur does not install. The entries of secateur itself are tested by the same classes.

    from secateur.testing import CriterionContract

    class TestMine(CriterionContract):
        name = "mine"  # the name of the entry point
"""

import pytest

for _module in ("criteria", "metrics", "runtimes", "samplers", "trainers", "transforms", "transports", "workloads"):
    pytest.register_assert_rewrite(f"secateur.testing.{_module}")  # so that a failure shows both sides

from secateur.testing.criteria import (  # noqa: E402 # after the registration
    BlockCriterionContract,
    CriterionContract,
    WeightCriterionContract,
)
from secateur.testing.metrics import MetricContract  # noqa: E402
from secateur.testing.runtimes import RuntimeContract  # noqa: E402
from secateur.testing.samplers import SamplerContract  # noqa: E402
from secateur.testing.trainers import TrainerContract  # noqa: E402
from secateur.testing.transforms import TransformContract  # noqa: E402
from secateur.testing.transports import DeviceContract, TransportContract  # noqa: E402
from secateur.testing.workloads import WorkloadContract  # noqa: E402

__all__ = [
    "BlockCriterionContract",
    "CriterionContract",
    "DeviceContract",
    "MetricContract",
    "RuntimeContract",
    "SamplerContract",
    "TrainerContract",
    "TransformContract",
    "TransportContract",
    "WeightCriterionContract",
    "WorkloadContract",
]
