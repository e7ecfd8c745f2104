"""Times on a GPU."""

from __future__ import annotations

from common.results import read
from figures.markdown import noted, table

CARD = "gpu-nvidia-h100-80gb-hbm3"


def machine() -> str:
    """The card and the versions."""
    about = read(CARD)["machine"]
    return f"{about['device']}, CUDA {about['cuda of torch']}, cupy {about['cupy']}, torch {about['versions']['torch']}"


def steps() -> str:
    """Steps of FISTA beside the product in them."""
    rows = [
        [
            row["library"],
            str(row["p = q"]),
            f"{row['step ms']:.2f}",
            f"{row['product ms']:.2f}",
            f"{row['part of the rate']:.2f}",
        ]
        for row in read(CARD)["sections"]["steps"]
    ]
    return noted(table(["library", "p = q", "step ms", "product ms", "part of the product's rate"], rows), f"{machine()}.")


def refits() -> str:
    """Exact weights on a support of real layers, by either way."""
    rows = [
        [
            row["operator"], f"{row['rows']} x {row['width']}", f"{row['sparsegpt s']:.2f}",
            f"{row['refit by factorisation s']:.2f}", f"{row['refit by gradients s']:.2f}",
        ]
        for row in read(CARD)["sections"]["real layers"]
    ]  # fmt: skip
    return noted(
        table(["operator", "shape", "`sparsegpt` s", "refit, factorised s", "refit, gradients s"], rows),
        f"{machine()}; conjugate gradients were not preconditioned, and the last row includes the compilation of kernels.",
    )


def models() -> str:
    """Whole models and layers."""
    sections = read(CARD)["sections"]
    found = [("OPT-125M's shape", row) for row in sections["model"]] + [
        ("a layer of LLaMA-3-8B", row) for row in sections["layer"]
    ]
    rows = [
        [name, row["method"], " x ".join(map(str, row["windows"])), f"{row['seconds']:.0f}", f"{row['peak GiB']:.0f}"]
        for name, row in found
    ]
    return noted(table(["model", "method", "windows x tokens", "s", "peak GiB"], rows), f"{machine()}.")
