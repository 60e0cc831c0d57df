from __future__ import annotations

import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from safetensors.torch import save_file

from secateur.errors import WorkloadError
from secateur.records import ROLES
from secateur.workloads import SHIPPED, cifar10, digits, text
from secateur.workloads.loading import load_attribute
from secateur.workloads.resnet import cifar_resnet
from secateur.workloads.roles import check_roles, collect
from secateur.workloads.scores import top1
from secateur.workloads.vgg import Vgg


def test_everything_listed_can_be_loaded(tmp_path):
    for factory in SHIPPED:
        assert callable(load_attribute(factory, tmp_path, "here", "workload"))


@pytest.mark.parametrize("network", ["resnet", "vit"])
def test_digits_are_learnt_from_the_train_role_alone_and_cached(network, monkeypatch, tmp_path):
    trainings = []
    original = digits.train

    def short(data, recipe, epochs):
        trainings.append((len(data), epochs))
        return original(data, replace(recipe, epochs=2), 2 if epochs > 1 else 1)

    monkeypatch.setattr(digits, "train", short)
    first = digits.workload(network=network, cache=str(tmp_path))
    second = digits.workload(network=network, cache=str(tmp_path))
    early, trained = first.build_early().state_dict(), first.build_model().state_dict()
    assert trainings == [(850, digits.RECIPES[network].epochs), (850, 1)]
    assert all(early[name].shape == tensor.shape for name, tensor in trained.items())
    assert not all(torch.equal(early[name], tensor) for name, tensor in trained.items())
    check_roles(first.data)
    assert sum(len(getattr(first.data, role)) for role in ROLES) == 1797
    for key, tensor in first.build_model().state_dict().items():
        assert torch.equal(tensor, second.build_model().state_dict()[key])
    moved = digits.shift(first.example_inputs[0], torch.Generator().manual_seed(0))
    assert moved.shape == first.example_inputs[0].shape
    assert first.build_model()(moved).shape == (2, 10)


def test_digits_have_two_networks():
    with pytest.raises(WorkloadError, match="no network 'vgg' for the digits; there are resnet, vit"):
        digits.workload(network="vgg")


@pytest.fixture
def table(tmp_path):
    """A training file of 400 sentences, of which some words tell the label."""
    draw = random.Random(0)
    rows = ["text\tlabel"]
    for number in range(400):
        words = draw.choices(["film", "plot", "actor", "scene", "the", "a"], k=draw.randint(1, 8))
        rows.append(" ".join([*words, ("Fine", "dull")[number % 2], "!"]) + f"\t{('good', 'bad')[number % 2]}")
    file = tmp_path / "train.tsv"
    file.write_text("\n".join(rows) + "\n")
    return file


def test_sentences_are_read_from_a_table_and_learnt_once(table, tmp_path, monkeypatch):
    trained = []
    original = text.trained
    monkeypatch.setattr(text, "trained", lambda data, recipe: trained.append(len(data)) or original(data, recipe))
    first = text.workload(train=str(table), cache=str(tmp_path))
    second = text.workload(train=str(table), cache=str(tmp_path))
    assert trained == [len(first.data.train)]
    check_roles(first.data)
    inputs, labels = collect(first.data.test)
    ids, mask = inputs["ids"], inputs["mask"]
    assert ids.shape == mask.shape == (len(labels), int(mask.sum(1).max())), "as long as the longest"
    model = second.build_model().eval()
    with torch.no_grad():
        assert top1(model(ids, mask), labels).mean() > 0.7
        longer = F.pad(ids, (0, 5)), F.pad(mask, (0, 5))
        torch.testing.assert_close(model(ids, mask), model(*longer))  # what is padding counts for nothing


def test_words_are_numbered_by_frequency_and_rare_ones_are_unknown():
    vocabulary = text.vocabulary_of(["It's dull, dull", "dull, IT is"])
    assert list(vocabulary) == [text.PADDING, text.UNKNOWN, "dull", "it", ","]
    ids, mask = text.encode(["Dull film", "it " * 100], vocabulary)
    assert ids[0, :3].tolist() == [2, 1, 0]
    assert mask.sum(1).tolist() == [2, text.LONGEST]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("label\ttext\nno tab\n", r"bad.tsv:2: a label and a sentence"),
        ("label\ttext\n1\t \n", r"bad.tsv:2: a label and a sentence"),
        ("class\ttext\n1\tfine\n", r"bad.tsv:1: the columns are \['class', 'text'\]"),
        ("label\ttext\n", r"bad.tsv holds no sentence"),
        ("", r"bad.tsv:1: the columns are \[\]"),
    ],
)
def test_a_table_that_cannot_be_used_is_said_with_its_line(content, said, tmp_path):
    (tmp_path / "bad.tsv").write_text(content)
    with pytest.raises(WorkloadError, match=said):
        text.workload(train=str(tmp_path / "bad.tsv"))


def test_a_label_that_was_not_trained_is_refused(table, tmp_path):
    (tmp_path / "test.tsv").write_text("label\ttext\ngood\tfine\nodd\tfine\n")
    with pytest.raises(
        WorkloadError, match=r"test.tsv:3: the label 'odd' is not in the training file; there are bad, good"
    ):
        text.workload(train=str(table), test=str(tmp_path / "test.tsv"))


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        part: (rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, count, dtype=np.uint8))
        for part, count in (("train", 700), ("test", 200))
    }


def write_official(folder, arrays):
    images, labels = arrays["train"]
    parts = [(f"data_batch_{i + 1}", images[i::5], labels[i::5]) for i in range(5)]
    for name, x, y in [*parts, ("test_batch", *arrays["test"])]:
        flat = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        (folder / name).write_bytes(
            pickle.dumps({b"data": flat, b"labels": y.tolist(), b"batch_label": b"x"}, protocol=2)
        )


def write_npz(folder, arrays):
    for part, (x, y) in arrays.items():
        np.savez(folder / f"cifar10_{part}.npz", images=x, labels=y)


def test_both_forms_of_cifar10_read_alike(arrays, tmp_path):
    for writer in (write_official, write_npz):
        folder = tmp_path / writer.__name__
        folder.mkdir()
        writer(folder, arrays)
    official = cifar10.read_cifar10(tmp_path / "write_official")
    npz = cifar10.read_cifar10(tmp_path / "write_npz")
    assert np.array_equal(official[2], npz[2])
    assert np.array_equal(official[3], npz[3])
    assert np.array_equal(np.sort(official[1]), np.sort(npz[1]))
    assert official[0].shape == npz[0].shape == (700, 32, 32, 3)


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_the_workload_keeps_search_selection_and_test_apart(depth, arrays, tmp_path):
    write_npz(tmp_path, arrays)
    save_file(cifar_resnet(depth).state_dict(), tmp_path / "w.safetensors")
    made = cifar10.workload(
        data=str(tmp_path), weights=str(tmp_path / "w.safetensors"), depth=depth, search=60, calibration=100
    )
    sizes = {role: len(getattr(made.data, role)) for role in ROLES}
    assert sizes == {"train": 600, "calibration": 100, "search": 60, "selection": 40, "test": 100}
    check_roles(made.data)
    (x,), _ = collect(made.data.test, 4)
    assert made.build_model()(x).shape == (4, 10)
    assert sum(1 for n, _ in made.build_model().named_modules() if n.endswith("conv1")) == (depth - 2) // 2 + 1


def test_a_network_without_weights_is_trained_on_the_train_role_and_kept(arrays, tmp_path, monkeypatch):
    write_npz(tmp_path, arrays)
    monkeypatch.setattr(cifar10, "EPOCHS", 1)
    options = {"data": str(tmp_path), "network": "vgg", "search": 60, "train": 128, "cache": str(tmp_path / "cache")}
    first = cifar10.workload(**options)
    assert first.name == "cifar10-vgg11"
    (file,) = (tmp_path / "cache").iterdir()
    trained = first.build_model().state_dict()
    monkeypatch.setattr(cifar10.Recipe, "trained", None)  # not again
    for key, tensor in cifar10.workload(**options).build_model().state_dict().items():
        assert torch.equal(tensor, trained[key])
    assert "n128-e1" in file.name


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_a_vgg_has_the_layers_of_its_depth(depth):
    model = Vgg(depth, 10).eval()
    layers = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(layers) == depth - 2, "one linear layer in place of three"
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_normalisation_is_that_of_the_usual_checkpoints(arrays, tmp_path):
    write_npz(tmp_path, arrays)
    save_file(cifar_resnet(20).state_dict(), tmp_path / "w.safetensors")
    made = cifar10.workload(data=str(tmp_path), weights=str(tmp_path / "w.safetensors"), search=50)
    x, _ = made.data.search[0]
    expected = (arrays["test"][0][0] / 255 - np.array(cifar10.MEAN)) / np.array(cifar10.STD)
    np.testing.assert_allclose(x.permute(1, 2, 0).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_augmentation_moves_and_mirrors_and_invents_nothing():
    x = torch.arange(4 * 3 * 32 * 32, dtype=torch.float32).view(4, 3, 32, 32) + 1
    y = cifar10.flip_and_crop(x, torch.Generator().manual_seed(1))
    assert y.shape == x.shape
    assert not torch.equal(x, y)
    for before, after in zip(x, y, strict=True):
        assert set(after.unique().tolist()) <= set(before.unique().tolist()) | {0.0}
    again = cifar10.flip_and_crop(x, torch.Generator().manual_seed(1))
    assert torch.equal(y, again)


def test_bad_folders_files_and_options_are_said(arrays, tmp_path):
    weights = tmp_path / "w.safetensors"
    save_file(cifar_resnet(20).state_dict(), weights)
    with pytest.raises(WorkloadError, match="holds no CIFAR-10"):
        cifar10.workload(data=str(tmp_path), weights=str(weights))
    write_npz(tmp_path, arrays)
    with pytest.raises(WorkloadError, match="has depth 20, 32, 44, 56; not 21"):
        cifar10.workload(data=str(tmp_path), weights=str(weights), depth=21)
    with pytest.raises(WorkloadError, match="A vgg for CIFAR-10 has depth 11, 13, 16, 19; not 20"):
        cifar10.workload(data=str(tmp_path), weights=str(weights), network="vgg", depth=20)
    with pytest.raises(WorkloadError, match="no network 'vit' for CIFAR-10; there are resnet, vgg"):
        cifar10.workload(data=str(tmp_path), weights=str(weights), network="vit")
    with pytest.raises(WorkloadError, match="between 1 and 99 test images"):
        cifar10.workload(data=str(tmp_path), weights=str(weights), search=100)
    with pytest.raises(WorkloadError, match="has no place|there is no tensor"):
        cifar10.workload(data=str(tmp_path), weights=str(weights), depth=32, search=50)
    file = tmp_path / "cifar10_test.npz"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(WorkloadError, match="is not a complete .npz"):
        cifar10.workload(data=str(tmp_path), weights=str(weights), search=50)


def test_official_files_may_hold_arrays_and_nothing_else(arrays, tmp_path):
    write_official(tmp_path, arrays)

    class Evil:
        def __reduce__(self):
            return (print, ("was here",))

    (tmp_path / "data_batch_3").write_bytes(pickle.dumps({b"data": Evil(), b"labels": []}))
    with pytest.raises(WorkloadError, match=r"data_batch_3 is not a CIFAR-10 batch: it refers to builtins.print"):
        cifar10.read_cifar10(tmp_path)
