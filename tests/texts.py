"""A workload of texts: keywords go in, three outputs come out, batches are padded to their longest text, and less of the score is better."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 # as everybody writes it
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from secateur.records import ROLES, DataRoles, Workload

WORDS, CLASSES, LONGEST = 40, 5, 9
LENGTH = {"input_ids": {1: "length"}, "attention_mask": {1: "length"}}


@dataclass
class Read:
    """As libraries return it."""

    logits: Tensor
    attention_mask: Tensor
    loss: Tensor | None = None
    features: tuple[Tensor, ...] = ()


class Reader(nn.Module):
    """Classes of a text: the mean of what its words say, without the padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.last = nn.Embedding(WORDS, 16), nn.Linear(16, 24), nn.Linear(24, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Read:
        words = torch.relu(self.up(self.embed(input_ids)))
        mask = attention_mask[..., None].to(words.dtype)
        features = self.last((words * mask).sum(1) / mask.sum(1))
        return Read(self.head(features), attention_mask.sum(1), None, (features,))


class Texts(Dataset[dict[str, Any]]):
    """Word numbers of different counts, with the model's own answer as label; as a table: rows are dicts."""

    def __init__(self, model: nn.Module, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(3, LONGEST + 1, (count,), generator=generator).tolist()
        self.ids = [torch.randint(1, WORDS, (length,), generator=generator) for length in lengths]
        with torch.no_grad():
            self.labels = [int(model(ids[None], torch.ones_like(ids)[None]).logits.argmax()) for ids in self.ids]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return {"input_ids": self.ids[number], "label": self.labels[number], "text": "…"}


def padded(rows: list[dict[str, Any]], length: int | None) -> dict[str, Tensor]:
    """To a length, or to the longest."""
    ids = nn.utils.rnn.pad_sequence([row["input_ids"] for row in rows], batch_first=True)
    ids = F.pad(ids, (0, length - ids.shape[1])) if length else ids
    labels = torch.tensor([row["label"] for row in rows])
    return {"labels": labels, "attention_mask": (ids > 0).long(), "input_ids": ids}


class Perplexity:
    """Gathered, as libraries do it."""

    def __init__(self) -> None:
        self.loss, self.count = 0.0, 0

    def update(self, outputs: Read, targets: Tensor) -> None:
        self.loss += float(F.cross_entropy(outputs.logits, targets, reduction="sum"))
        self.count += len(targets)

    def compute(self) -> Tensor:
        return torch.tensor(self.loss / self.count).exp()


def workload(*, length: int | None = None) -> Workload:
    """length: to which all texts are padded; None pads each batch to its longest one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Reader().eval()
    with torch.no_grad():
        model.head.weight.mul_(8)
    example = torch.ones(2, LONGEST, dtype=torch.long)
    roles = {
        role: DataLoader(Texts(model, 80, seed), collate_fn=partial(padded, length=length))
        for seed, role in enumerate(ROLES)
    }
    return Workload(
        name="texts",
        build_model=lambda: model,
        example_inputs={"input_ids": example, "attention_mask": example},
        data=DataRoles(**roles),
        loss=lambda outputs, targets: F.cross_entropy(outputs.logits, targets),
        score=Perplexity(),
        score_name="perplexity",
        score_unit="",
        score_direction="minimize",
        dynamic_axes={} if length else LENGTH,
    )
