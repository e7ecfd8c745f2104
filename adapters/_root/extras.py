"""Packages that come with the extras of `gramian`: one sentence names those that are missing."""

from __future__ import annotations

from importlib.util import find_spec

__all__ = ["EVAL", "GGUF", "MODELS", "ONNX", "PROOFS", "QUANTISED", "REPORT", "TRAIN", "complete", "named", "need"]

MODELS = ("torch", "transformers", "safetensors", "tqdm")  # packages that loading and pruning a model needs
PROOFS = ("hypothesis", "cvxpy", "tqdm")  # packages that checking claims and laws needs
TRAIN = ("torch", "transformers", "safetensors", "tqdm", "accelerate")  # packages that training a model needs
EVAL = ("lm_eval",)  # packages that named tasks need
ONNX = ("onnx", "onnxruntime", "onnxscript")  # packages that ONNX graphs need
GGUF = ("xllamacpp", "sentencepiece")  # packages that GGUF files need, beside one that carries the converter
QUANTISED = ("compressed_tensors",)  # packages that checkpoints with packed codes need
REPORT = ("matplotlib", "pandas")  # packages that figures and data frames need


def need(extra: str, packages: tuple[str, ...], what: str) -> None:
    """Raise ImportError if any of the packages is missing, naming those, `what` needs them, and the command that adds them."""
    if missing := [package for package in packages if find_spec(package) is None]:
        raise ImportError(f"{what} needs {' and '.join(missing)}: pip install 'gramian[{extra}]'")


def named(error: ModuleNotFoundError, what: str) -> ImportError:
    """Return the error of `need` in place of Python's own if the module that is missing belongs to an extra, else `error`."""
    missing = (error.name or "").partition(".")[0]
    for extra, packages in (("models", MODELS), ("proofs", PROOFS)):
        if missing in packages:
            return ImportError(f"{what} needs {missing}: pip install 'gramian[{extra}]'")
    return error


def complete() -> bool:
    """Whether all packages of the two extras are installed."""
    return all(find_spec(package) is not None for package in (*MODELS, *PROOFS))
