"""FastNAS of NVIDIA Model Optimizer, in an interpreter of its own, started by `fastnas.py`.

Nothing of secateur is needed here but the module of the network.

    fastnas_worker.py FOLDER

FOLDER/job.pt: model, images and targets (its score), calibration (its batch norms), divisor, shares (upper bounds of the FLOPs).
Writes FOLDER/result.json, and FOLDER/network-N.pt with the tensors of each network found.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CALIBRATION_BATCHES = 50
"""FastNAS recalibrates from a queue of exactly so many batches, and not at all while the queue is shorter."""


def rules(divisor: int) -> dict[str, Any]:
    """The whole range of widths, in steps of `divisor` channels instead of 32."""
    ratios = tuple(0.05 * i for i in range(1, 21))
    convolution = {"channels_ratio": ratios, "kernel_size": (), "channel_divisor": divisor}
    features = {"features_ratio": ratios, "feature_divisor": divisor}
    return {"nn.Conv2d": {"*": convolution}, "nn.BatchNorm2d": {"*": features}, "nn.Linear": {"*": features}}


def main(folder: Path) -> None:
    """Search once for each share; the sensitivity map is made by the first search and shared with the others."""
    import modelopt
    import modelopt.torch.prune as mtp

    torch.set_num_threads(1)
    job = torch.load(folder / "job.pt", weights_only=False)  # written by the benchmark that started this
    images, targets, calibration = job["images"], job["targets"], job["calibration"]

    @torch.no_grad()
    def score(model: nn.Module) -> float:
        model.eval()  # this is where FastNAS recalibrates
        outputs = torch.cat([model(x) for x in images.split(100)])
        return float((outputs.argmax(1) == targets).float().mean())

    def loader() -> list[Tensor]:
        return list(calibration.split(max(1, len(calibration) // CALIBRATION_BATCHES)))[:CALIBRATION_BATCHES]

    searches = []
    for number, share in enumerate(job["shares"]):
        model = torch.load(folder / "job.pt", weights_only=False)["model"]
        started = time.process_time()
        found, _ = mtp.prune(
            model,
            mode=[("fastnas", rules(job["divisor"]))],
            constraints={"flops": f"{100 * share:.4f}%"},
            dummy_input=images[:1],
            config={
                "data_loader": loader(),
                "collect_func": lambda batch: batch,
                "score_func": score,
                "checkpoint": str(folder / "sensitivities.pth"),
                "verbose": False,
            },
        )
        seconds = time.process_time() - started
        torch.save(dict(found.state_dict()), folder / f"network-{number}.pt")
        searches.append({"share": share, "cpu_s": seconds})
    (folder / "result.json").write_text(json.dumps({"version": modelopt.__version__, "searches": searches}))


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(Path(sys.argv[1]))
