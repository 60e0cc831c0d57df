"""How much of which architecture can be cut? Prints the table of docs/architectures.md, after the checks of the tests.

Small networks with random weights, those of tests/zoo.py, and of tests/transformer_zoo.py where transformers is installed
(`pip install -e '.[transformers]'`). Minutes; `--quick` leaves out training and ONNX.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import arguments, write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from architectures import Subject
from zoo import ZOO


def main() -> None:
    """Check and print one row of a Markdown table for each architecture."""
    options = arguments(__doc__).parse_args()
    architectures = dict(ZOO)
    try:
        import transformer_zoo
    except ImportError:
        print("transformers is not installed: its models are left out")
    else:
        architectures = {**transformer_zoo.ZOO, **ZOO}
    print("| architecture | within reach: parameters / MACs | left whole |")
    print("|---|---|---|")
    figures = {}
    for name, architecture in architectures.items():
        subject = Subject(architecture)
        subject.check_cuts(4)
        if not options.quick:
            subject.check_training()
            subject.check_onnx()
        parameters, macs = subject.reach
        reasons = "; ".join(f"`{group}`: {reason}" for group, reason in subject.left_whole.items())
        print(f"| {name} | {parameters:.0%} / {macs:.0%} | {reasons} |", flush=True)
        figures[name] = {"parameters": parameters, "macs": macs, "left_whole": subject.left_whole}
    write_json(options.json, figures)


if __name__ == "__main__":
    main()
