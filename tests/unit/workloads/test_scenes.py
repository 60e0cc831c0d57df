from __future__ import annotations

import pytest
import torch

from secateur.workloads import scenes
from secateur.workloads.roles import collect


@pytest.fixture(scope="module")
def stream():
    return scenes.video(70, run=30, shot=15)


def test_a_stream_has_runs_of_easy_and_of_hard_frames(stream):
    assert stream.frames.shape == (70, 1, scenes.SIZE, scenes.SIZE)
    assert stream.hard.tolist() == [False] * 30 + [True] * 30 + [False] * 10
    assert torch.equal(stream.frames, scenes.video(70, run=30, shot=15).frames)
    assert not torch.equal(stream.frames, scenes.video(70, 1, run=30, shot=15).frames)


def test_an_easy_digit_is_the_same_throughout_a_shot_and_moves(stream):
    first, second = stream.frames[:15], stream.frames[15:30]
    for shot in (first, second):
        assert torch.allclose(shot.sum((1, 2, 3)), shot[0].sum(), atol=1e-2)
    assert not torch.equal(first[0], first[14])
    assert len(stream.labels[:15].unique()) == 1


def test_hard_frames_hide_a_part_of_the_digit_under_noise(stream):
    _, labels = collect(scenes._digits(None).test)
    assert set(stream.labels.tolist()) <= set(labels.tolist())
    assert stream.frames[30:60].std() > 0
    corner = stream.frames[:, :, 0, 0].unique()
    assert len(corner) > 20, "noise lies in the corners of hard frames alone"
