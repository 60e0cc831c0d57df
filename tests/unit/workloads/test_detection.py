"""The detection workload: its score and its loss on predictions whose value is known."""

from __future__ import annotations

import math

import pytest
import torch

from secateur.compression.groups import find_groups
from secateur.workloads import detection
from secateur.workloads.detector import STRIDES, Detector

KINDS = len(detection.CLASSES)
OBJECTS = torch.tensor(
    [
        [[0, 4.0, 4.0, 16.0, 16.0], [2, 30.0, 20.0, 50.0, 40.0], [-1] * 5, [-1] * 5],
        [[0, 10.0, 10.0, 42.0, 42.0], [1, 44.0, 44.0, 56.0, 56.0], [-1] * 5, [-1] * 5],
    ]
)


def empty():
    """Predictions of heads that see nothing anywhere."""
    heads = []
    for stride in STRIDES:
        head = torch.zeros(len(OBJECTS), KINDS + 4, detection.SIZE // stride, detection.SIZE // stride)
        head[:, :KINDS] = -9.0
        heads.append(head)
    return heads


def told(heads, sample, thing, *, confidence=6.0, shift=0.0):
    """Let the cell next to an object's centre, of the head for its size, say what it is and where, moved by `shift` pixels."""
    kind, left, top, right, bottom = thing.tolist()
    level = next(i for i, (least, most) in enumerate(detection.LEVELS) if least <= right - left < most)
    stride = STRIDES[level]
    column, row = (int((first + last) / 2 / stride) for first, last in ((left, right), (top, bottom)))
    x, y = ((place + 0.5) * stride for place in (column, row))
    heads[level][sample, int(kind), row, column] = confidence
    sides = (x - left - shift, y - top, right + shift - x, bottom - y)
    heads[level][sample, KINDS:, row, column] = torch.tensor([math.log(side / stride) for side in sides])


def perfect():
    heads = empty()
    for sample, things in enumerate(OBJECTS):
        for thing in things[things[:, 0] >= 0]:
            told(heads, sample, thing)
    return heads


def test_boxes_are_where_the_cells_say():
    heads = perfect()
    best = detection.flat(heads)[0, :, :KINDS].amax(-1).topk(2).indices
    found = sorted(detection.boxes(heads)[0, best].round().tolist())
    assert found == [[4.0, 4.0, 16.0, 16.0], [30.0, 20.0, 50.0, 40.0]]


def test_precision_is_one_where_all_objects_are_found_and_zero_where_none_is():
    assert detection.mean_average_precision(perfect(), OBJECTS) == 1
    assert detection.mean_average_precision(empty(), OBJECTS) == 0


def test_a_class_that_is_missed_and_boxes_beside_the_objects_cost_precision():
    heads = perfect()
    heads[1][0, 2] = -9.0  # the triangle is not seen
    assert detection.mean_average_precision(heads, OBJECTS) == pytest.approx(2 / 3)
    heads = empty()
    for sample, shift in ((0, 5.0), (1, 12.0)):  # more than a third of their width beside the circles
        told(heads, sample, OBJECTS[sample, 0], shift=shift)
    assert detection.mean_average_precision(heads, OBJECTS) == 0


def test_a_second_box_of_one_object_is_dropped_and_a_wrong_one_before_it_counts():
    heads = perfect()
    twice = OBJECTS[1, 1].clone()
    twice[1:] += torch.tensor([1.0, 0.0, 1.0, 0.0])
    heads[0][1, 1, 12, 13] = 3.0
    heads[0][1, KINDS:, 12, 13] = torch.tensor([math.log(side / 4) for side in (9.0, 6.0, 3.0, 6.0)])
    assert detection.mean_average_precision(heads, OBJECTS) == 1
    told(heads, 0, torch.tensor([1, 40.0, 2.0, 52.0, 14.0]), confidence=8.0)  # a square where there is none
    assert detection.mean_average_precision(heads, OBJECTS) == pytest.approx((1 + 1 / 2 + 1) / 3)


def test_the_loss_is_least_where_the_heads_are_right_and_trains_the_network():
    right, nothing = (detection.loss(heads, OBJECTS) for heads in (perfect(), empty()))
    assert right < nothing
    torch.manual_seed(0)
    model = Detector(KINDS, width=8)
    detection.loss(model(torch.randn(2, 3, detection.SIZE, detection.SIZE)), OBJECTS).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_shapes_lie_in_the_image_and_are_drawn_alike_again():
    first, second = detection.shapes(20, 3), detection.shapes(20, 3)
    images, objects = first.tensors
    assert images.shape == (20, 3, detection.SIZE, detection.SIZE)
    there = objects[objects[..., 0] >= 0]
    assert 20 <= len(there) <= 20 * detection.MOST
    assert (there[:, 1:] >= 0).all()
    assert (there[:, 1:] <= detection.SIZE).all()
    assert all(torch.equal(a, b) for a, b in zip(first.tensors, second.tensors, strict=True))
    assert not torch.equal(objects, detection.shapes(20, 4).tensors[1])


def test_every_layer_of_the_detector_but_its_last_ones_loses_channels():
    torch.manual_seed(0)
    model = Detector(KINDS, width=8)
    found = find_groups(model, (torch.randn(2, 3, detection.SIZE // 2, detection.SIZE // 2),))
    whole = {group.name: group.reason for group in found.excluded}
    assert whole == {f"heads.{i}.1": "its channels are the model's output" for i in range(3)}
