"""Sentences with a label from tab-separated files, and a small BERT-style classifier that is trained on them once.

The first line of a file names two columns; one is `label`, the other holds the sentences. Words are lower-cased; those that occur
once are all `<unknown>`. The network sees only the train role of what is drawn from the training file.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 # torch's own custom
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from secateur.errors import WorkloadError, first_line
from secateur.files import write
from secateur.records import Workload
from secateur.workloads.checkpoints import load_weights
from secateur.workloads.pytrees import rows as rows_of
from secateur.workloads.roles import collect, split_roles
from secateur.workloads.samples import Samples
from secateur.workloads.scores import top1
from secateur.workloads.training import Recipe, cache_folder
from secateur.workloads.transformer import Sizes, TextClassifier

SPECIAL = PADDING, UNKNOWN = "<padding>", "<unknown>"
LONGEST = 64
"""Words of a sentence that are read; the rest is cut off."""
MOST_WORDS = 10_000
"""Size of the vocabulary."""
BATCH, HIDDEN = 64, 0.1
"""Sentences of a training step; share of their words that are made unknown: sentences to come hold words that training has not."""

Row = tuple[str, str]

_log = logging.getLogger(__name__)


def workload(
    *, train: str, selection: str | None = None, test: str | None = None, cache: str | None = None
) -> Workload:
    """A classifier of sentences.

    train, selection, test: `.tsv` or `.tsv.gz` files; roles without a file are drawn from the training file. cache: folder for the
    vocabulary and the trained weights, default SECATEUR_CACHE, else `~/.cache/secateur`. The first call trains for a minute or two.

    Raises WorkloadError where a file is no table of labels and sentences, or holds a label that the training file does not.
    """
    files = {role: path for role, path in (("train", train), ("selection", selection), ("test", test)) if path}
    tables = {role: read(Path(path).expanduser()) for role, path in files.items()}
    labels = sorted({label for label, _ in tables["train"]})
    vocabulary = vocabulary_of(text for _, text in tables["train"])
    sets = {
        role: Samples(_encoded(table, vocabulary, labels, files[role]), trimmed, role) for role, table in tables.items()
    }
    data = split_roles(sets.pop("train"), seed=0, **sets)
    recipe = Recipe(
        f"text-{_digest(tables['train'], vocabulary)}-64x2-h4-b64-u10-e4-s0",
        lambda: network(len(vocabulary), len(labels)),
        epochs=4,
        batch=1,
        rate=1e-3,
        optimizer=lambda tensors: torch.optim.AdamW(tensors, weight_decay=0.01),
    )
    folder = cache_folder(cache)
    weights = folder / f"{recipe.name}.safetensors"
    if not weights.is_file():
        _log.info("Training the classifier on %d sentences, once; it is kept in %s.", len(data.train), folder)  # type: ignore[arg-type] # it has a length
        write(folder / f"{recipe.name}.json", json.dumps({"words": vocabulary, "labels": labels}).encode())
        write(weights, save(trained(data.train, recipe).state_dict()))
    return Workload(
        name="text",
        build_model=lambda: load_weights(recipe.network(), weights),
        example_inputs=rows_of(collect(data.search)[0], slice(2)),  # as long as the longest that the search scores
        dynamic_axes={"ids": {1: "length"}, "mask": {1: "length"}},
        data=data,
        loss=F.cross_entropy,
        score=top1,
    )


def read(path: Path) -> list[Row]:
    """Labels and sentences of a file. Raises WorkloadError naming file, line and remedy."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as stream:
            lines = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{path} cannot be read as tab-separated text: {first_line(error)}") from error
    header = lines[0] if lines else []
    if len(header) != 2 or "label" not in header:
        raise WorkloadError(f"{path}:1: the columns are {header}; two are needed, one of them called 'label'.")
    at = header.index("label")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != 2 or not line[1 - at].strip():
            raise WorkloadError(f"{path}:{number}: a label and a sentence, separated by one tab, are needed.")
    if len(lines) == 1:
        raise WorkloadError(f"{path} holds no sentence.")
    return [(line[at], line[1 - at]) for line in lines[1:]]


def words_of(text: str) -> list[str]:
    """The words and punctuation marks of a sentence, as the vocabulary has them."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def vocabulary_of(texts: Iterable[str]) -> dict[str, int]:
    """Word → number: padding, the unknown word, then the words that occur more than once, the most frequent first."""
    counted = Counter(word for text in texts for word in words_of(text))
    frequent = (word for word, count in counted.most_common() if count > 1)
    return {word: number for number, word in enumerate([*SPECIAL, *islice(frequent, MOST_WORDS - len(SPECIAL))])}


def encode(texts: Sequence[str], vocabulary: Mapping[str, int]) -> tuple[Tensor, Tensor]:
    """Sentences as the network takes them: numbers of words, int64, and which of them are no padding, bool; both (n, LONGEST)."""
    ids = torch.zeros(len(texts), LONGEST, dtype=torch.int64)
    for row, text in zip(ids, texts, strict=True):
        numbers = [vocabulary.get(word, vocabulary[UNKNOWN]) for word in words_of(text)[:LONGEST]]
        row[: len(numbers)] = torch.tensor(numbers)
    return ids, ids != vocabulary[PADDING]


def network(words: int, classes: int) -> TextClassifier:
    """The untrained classifier: (n, tokens) twice → (n, classes)."""
    return TextClassifier(Sizes(width=64, depth=2, heads=4, inner=256), words=words, longest=LONGEST, classes=classes)


def trained(data: Dataset[Any], recipe: Recipe) -> nn.Module:
    """Train the classifier from scratch, in batches of sentences of about one length: they are drawn, and their order changes."""
    inputs, labels = collect(data)
    ids, mask = inputs["ids"], inputs["mask"]
    lengths = mask.sum(1)
    size = min(BATCH, len(labels))
    order = (lengths + torch.rand(len(labels), generator=torch.Generator().manual_seed(0))).argsort()
    batches = order[len(labels) % size :].view(-1, size)

    def loss(model: nn.Module, number: Tensor, generator: torch.Generator) -> Tensor:
        batch = batches[number].flatten()
        longest = int(lengths[batch].max())
        words, there = ids[batch, :longest], mask[batch, :longest]
        hidden = there & (torch.rand(words.shape, generator=generator) < HIDDEN)
        return F.cross_entropy(model(words.masked_fill(hidden, SPECIAL.index(UNKNOWN)), there), labels[batch])

    return recipe.trained(len(batches), loss)


def trimmed(samples: list[Any]) -> tuple[dict[str, Tensor], Tensor]:
    """A batch whose padding ends with its longest sentence."""
    inputs, labels = default_collate(samples)
    longest = int(inputs["mask"].sum(1).max())
    return {name: tensor[:, :longest] for name, tensor in inputs.items()}, labels


def _digest(rows: Sequence[Row], vocabulary: Mapping[str, int]) -> str:
    """Tells training files apart, and what is made of their words."""
    return hashlib.sha256(json.dumps([rows, vocabulary, LONGEST]).encode()).hexdigest()[:16]


def _encoded(rows: Sequence[Row], vocabulary: Mapping[str, int], labels: Sequence[str], path: str) -> Dataset[Any]:
    unknown = next(((number, label) for number, (label, _) in enumerate(rows, start=2) if label not in labels), None)
    if unknown is not None:
        raise WorkloadError(
            f"{path}:{unknown[0]}: the label '{unknown[1]}' is not in the training file; there are {', '.join(labels)}."
        )
    ids, mask = encode([text for _, text in rows], vocabulary)
    targets = torch.tensor([labels.index(label) for label, _ in rows])
    return _Sentences(ids, mask, targets)


@dataclass(frozen=True)
class _Sentences(Dataset[Any]):
    """Samples: numbers of words and mask, both (LONGEST,), by the names of the network's arguments; and the number of the label."""

    ids: Tensor
    mask: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return {"ids": self.ids[index], "mask": self.mask[index]}, self.targets[index]
