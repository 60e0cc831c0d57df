"""The trainers of docs/training.md under the contract. Lightning and transformers are extras."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from secateur.testing import TrainerContract

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", PAGE, re.DOTALL))
NEEDS = {"lightning_training": ["lightning"], "hf_training": ["transformers", "accelerate"], "torch_training": []}


@pytest.mark.filterwarnings("ignore")  # of Lightning's and transformers' own
class TestTrainers(TrainerContract):
    @pytest.fixture(params=sorted(NEEDS))
    def function(self, request):
        for package in NEEDS[request.param]:
            pytest.importorskip(package, reason=f"{package} is an extra")
        module = ModuleType(request.param)
        exec(EXAMPLES[request.param], vars(module))  # the page's own text
        return module.train
