from __future__ import annotations

from types import SimpleNamespace

import pytest

from secateur.definition import RecoverDefinition
from secateur.errors import StateError
from secateur.pipelines.state import RunFolder
from secateur.pipelines.worker import _trainer
from secateur.recovery.trainers import trainer_of


def test_a_worker_trains_with_the_trainer_that_the_run_was_started_with(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def train(model, teacher, data, budget, save):\n    return model\n")
    settings = RecoverDefinition(trainer="mine.py:train")
    digest = trainer_of(settings, tmp_path).digest
    run = RunFolder(tmp_path, "r-1", "p", "d", str(tmp_path), "now", f"w on here with mine.py:train {digest}", {})
    prepared = SimpleNamespace(definition=SimpleNamespace(recover=settings))
    assert _trainer(prepared, run).name == "mine.py:train"
    file.write_text(file.read_text() + "# changed\n")
    with pytest.raises(StateError, match="The file of mine.py:train was changed while run r-1 was going on"):
        _trainer(prepared, run)
