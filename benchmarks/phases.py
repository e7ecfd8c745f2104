"""Where the seconds of a pruning run go, on the protocol's model and text.

    python benchmarks/phases.py --text FOLDER [--methods l0 sparsegpt fistapruner] [--blocks 3] [--out FILE]

`common/protocol.py` says what FOLDER holds. Half of the weights of the first blocks are zeroed by each method with its
defaults, FISTAPruner with the six lambdas of `gramian demo`. A phase's seconds are those spent in it and not in another one
inside of it, by the clock of the thread that walks; `solver` is what is left of the time of an operator.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from common.clock import phases
from common.protocol import Protocol
from common.results import RESULTS, save

from gramian.adapters import prune
from gramian.tables import table
from gramian.versions import versions

OPTIONS: dict[str, dict[str, Any]] = {"fistapruner": {"options": {"max_lambdas": 6}}}


def measured(protocol: Protocol, method: str, blocks: int) -> dict[str, Any]:
    """Seconds by phase of one method on the first blocks."""
    started = time.perf_counter()
    with phases() as seconds:
        report = prune(
            protocol.model, protocol.calibration, heldout=protocol.heldout, method=method, sparsity=0.5,
            blocks=slice(0, blocks), progress=False, **OPTIONS.get(method, {}),
        )  # fmt: skip
    total = time.perf_counter() - started
    spent = {phase: seconds[phase] for phase in sorted(seconds, key=lambda phase: (phase == "the rest", -seconds[phase]))}
    errors = {"mean error": report.mean_error, "mean held-out error": report.mean_heldout_error}
    return {"method": method, "operators": len(report.operators), "seconds": total, "phases": spent} | errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER", help="where the protocol's texts are")
    parser.add_argument("--methods", nargs="+", default=["l0", "sparsegpt", "fistapruner"], help="(default: %(default)s)")
    parser.add_argument("--blocks", type=int, default=3, help="how many blocks (default %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "phases.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    protocol = Protocol.load(arguments.text)
    original = {key: value.clone() for key, value in protocol.model.state_dict().items()}
    rows = []
    for method in arguments.methods:
        protocol.model.load_state_dict(original)
        rows.append(measured(protocol, method, arguments.blocks))
        lines = [[phase, f"{spent:.1f}", f"{spent / rows[-1]['seconds']:.0%}"] for phase, spent in rows[-1]["phases"].items()]
        print(table([method, "s", "part"], [*lines, ["all", f"{rows[-1]['seconds']:.1f}", ""]]), flush=True)
        print(f"mean error {rows[-1]['mean error']:.7f}, held-out {rows[-1]['mean held-out error']:.7f}\n", flush=True)
    save(
        arguments.out,
        {"versions": dict(versions()), "threads": torch.get_num_threads(), "blocks": arguments.blocks, "rows": rows},
    )


if __name__ == "__main__":
    main()
