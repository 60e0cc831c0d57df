"""Gates on a simulated video, with a controller and without: accuracy against average MACs and time, and a figure over the frames.

    python benchmarks/gating.py RUN/finalists/NAME/model.onnx DENSE.onnx --json OUT --figure OUT.svg

Every arm sees the same frames, one at a time, on one thread: 300 easy and 300 hard ones in turn (`secateur.workloads.scenes`).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from common import arguments, write_json
from secateur.gating import Controller, GatedSession
from secateur.workloads.scenes import Video, video

FRAMES, QUICK, WINDOW = 3000, 1200, 50
"""Frames of a stream, with --quick; frames that a point of the figure is the mean of."""
COLOURS = ("#888", "#c33", "#06c")


def gated(session: GatedSession, stream: Video, controller: Controller | None, cost: str) -> dict[str, Any]:
    """One pass over the stream. cost: what the controller is told of, `macs` or `seconds`."""
    right, macs, seconds = [], [], []
    for frame, label in zip(stream.frames[:, None].numpy(), stream.labels.tolist(), strict=True):
        done = session.frame({"input": frame}, controller.threshold if controller else 0.0)
        right.append(int(done.outputs["output"].argmax()) == label)
        macs.append(done.macs)
        seconds.append(done.seconds)
        if controller:
            controller.observe(getattr(done, cost))
    return figures(stream, right, macs, seconds)


def ungated(file: Path, stream: Video, macs: int) -> dict[str, Any]:
    """The same of a file without gates."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    right, seconds = [], []
    for frame, label in zip(stream.frames[:, None].numpy(), stream.labels.tolist(), strict=True):
        started = time.perf_counter()
        (output,) = session.run(None, {"input": frame})
        seconds.append(time.perf_counter() - started)
        right.append(int(output.argmax()) == label)
    return figures(stream, right, [macs] * len(right), seconds)


def figures(stream: Video, right: list[bool], macs: list[int], seconds: list[float]) -> dict[str, Any]:
    """Accuracy and MACs of easy frames, of hard ones and of all, milliseconds on average, and MACs over time."""
    hard, correct, work = stream.hard.numpy(), np.array(right), np.array(macs)
    parts = {"easy": ~hard, "hard": hard, "all": np.ones(len(hard), bool)}
    return {
        "accuracy": {name: float(correct[part].mean()) for name, part in parts.items()},
        "macs": {name: float(work[part].mean()) for name, part in parts.items()},
        "ms": float(np.mean(seconds)) * 1e3,
        "over_time": work[: len(work) // WINDOW * WINDOW].reshape(-1, WINDOW).mean(1).tolist(),
    }


def drawn(arms: dict[str, dict[str, Any]], most: float) -> str:
    """MACs over the frames, a line for each arm, as SVG. most: MACs at the top."""
    lines = ['<text x="60" y="18">MACs of a frame, of the network without gates (mean of 50 frames)</text>']
    for share in (0.25, 0.5, 0.75, 1.0):
        y = 230 - 200 * share
        lines.append(
            f'<line x1="60" x2="700" y1="{y}" y2="{y}" stroke="#ddd"/><text x="20" y="{y + 4}">{share:.0%}</text>'
        )
    for number, (name, arm) in enumerate(arms.items()):
        points = arm["over_time"]
        at = [f"{60 + 640 * i / (len(points) - 1):.1f},{230 - 200 * y / most:.1f}" for i, y in enumerate(points)]
        lines.append(f'<polyline fill="none" stroke="{COLOURS[number]}" stroke-width="2" points="{" ".join(at)}"/>')
        lines.append(f'<text x="{60 + 220 * number}" y="258" fill="{COLOURS[number]}">{name}</text>')
    style = 'font-family="sans-serif" font-size="12"'
    body = "\n".join(lines)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 270" {style}>\n{body}\n</svg>\n'


def main() -> None:
    """Run all arms, print a table, write the figure."""
    parser = arguments(__doc__)
    parser.add_argument("gated", type=Path)
    parser.add_argument("dense", type=Path)
    parser.add_argument("--dense-macs", type=int, default=0, help="of the dense model, for the table")
    parser.add_argument(
        "--budget", type=float, default=0.5, help="share of the MACs without gates; the same share of the open time"
    )
    parser.add_argument("--figure", type=Path, help="write the figure here, as SVG")
    options = parser.parse_args()
    stream = video(QUICK if options.quick else FRAMES)
    session = GatedSession(options.gated.read_bytes())
    whole = session.prices.ungated
    free = gated(session, stream, None, "macs")
    arms = {
        "controller off": free,
        f"MACs held at {options.budget:.0%}": gated(session, stream, Controller(options.budget * whole), "macs"),
        "time held at 85 % of off": gated(session, stream, Controller(0.85 * free["ms"] / 1e3), "seconds"),
    }
    table = {"dense": ungated(options.dense, stream, options.dense_macs), **arms}
    for name, arm in table.items():
        accuracy, macs = arm["accuracy"], arm["macs"]
        print(
            f"| {name} | {accuracy['easy']:.1%} | {accuracy['hard']:.1%} | {accuracy['all']:.1%} | {macs['easy'] / 1e6:.2f} M "
            f"| {macs['hard'] / 1e6:.2f} M | {macs['all'] / 1e6:.2f} M | {arm['ms']:.3f} |"
        )
    print(f"without gates: {whole / 1e6:.2f} M MACs")
    if options.figure:
        options.figure.write_text(drawn(arms, whole))
    write_json(options.json, {"ungated_macs": whole, "arms": table})


if __name__ == "__main__":
    main()
