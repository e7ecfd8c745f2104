"""A narrower stream beside fewer heads and channels: a small llama over bytes, at nearly equal parameters.

    python benchmarks/sliced.py [--cells REGEX] [--out FILE]

SliceGPT cannot narrow gemma-3-270m, whose blocks put a norm on what they add to the stream; so a small llama (four blocks of
width 128) is trained for 600 steps on bytes of the text that ships with Python, and loses 20 and 30 % of the parameters
inside its blocks, on 64 windows of 128 bytes; widths of the stream come in steps, so that SliceGPT removes a little less at
20 % and a little more at 30 %. The figures are those of `allocation.py`, on 128 windows that trained and calibrated nothing:
the mean divergence of the predictions from the dense model's, KL(dense || pruned) per byte, and the perplexity per byte.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from allocation import judged, trained
from common.cells import resumed
from common.results import RESULTS
from figures.sliced import HEAD, rows_of

from gramian.adapters.removal.amount import block_parameters
from gramian.tables import table

RATIOS = (0.2, 0.3)
WAYS: dict[str, dict[str, Any]] = {
    "slicegpt": {"method": "slicegpt"},
    "slicegpt, channels": {"method": "slicegpt", "options": {"basis": "channels"}},
    "numerical": {"method": "numerical"},
    "wanda-sp": {"method": "wanda-sp", "allocation": "score"},
    "cfsp": {"method": "cfsp"},
    "flap": {"method": "flap"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, default=RESULTS / "sliced.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    small = cache(trained)

    def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        dense, windows, apart = small()
        model, report, found = judged(keywords, dense, windows, apart)
        assert found.divergence is not None and found.dense_losses is not None
        return {
            "parameters": [block_parameters(each) for each in (dense, model)],
            "width": model.config.hidden_size,
            "seconds": report.seconds,
            "divergence": float(found.divergence.mean()),
            "perplexity": math.exp(found.losses.mean()),
            "dense_perplexity": math.exp(found.dense_losses.mean()),
        }

    cells = {f"{ratio:.0%} {name}": {**how, "ratio": ratio} for ratio in RATIOS for name, how in WAYS.items()}
    print(table(list(HEAD), rows_of(resumed(cells, arguments.cells, arguments.out, run))))


if __name__ == "__main__":
    main()
