"""Scores that are called shares must be shares."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from secateur.errors import WorkloadError
from secateur.records import SHARE
from secateur.workloads.functions import check_unit


@pytest.mark.parametrize("scores", [torch.tensor([0.4, -3.2]), torch.tensor(27.5)])
def test_scores_outside_of_0_and_1_are_refused_as_shares_and_taken_with_a_unit(scores):
    with pytest.raises(WorkloadError, match=r"score is (-3\.2|27\.5) .* score_unit"):
        check_unit(SimpleNamespace(score_unit=SHARE), scores, "two calibration samples")
    check_unit(SimpleNamespace(score_unit="dB"), scores, "two calibration samples")
    check_unit(SimpleNamespace(score_unit=SHARE), torch.tensor([0.0, 1.0]), "two calibration samples")
