"""Models without the memory of their parameters, and what other threads build meanwhile."""

from __future__ import annotations

import threading

import torch
from tiny import tiny_model, tiny_tokenizer
from transformers import AutoConfig

from gramian.adapters import save
from gramian.adapters.run.skeletons import skeleton
from gramian.adapters.run.streaming import open_checkpoint

ROUNDS = 12


def test_threads_that_build_at_once(tmp_path):
    """Two open checkpoints and one builds modules of its own: its parameters are on the CPU, then and afterwards."""
    folders = [save(tiny_model(name), tiny_tokenizer(), tmp_path / name) for name in ("llama", "opt")]
    register, dtype, found = torch.nn.Module.register_parameter, torch.get_default_dtype(), []
    opening = threading.Event()

    def opened(folder) -> None:
        for _ in range(ROUNDS):
            stream = open_checkpoint(folder)
            found.append(
                all(parameter.is_meta for parameter in stream.model.get_submodule(stream.blocks.paths[0]).parameters())
            )

    def built() -> None:
        while not opening.is_set():
            found.append(not torch.nn.Linear(2, 2).weight.is_meta)

    threads = [threading.Thread(target=opened, args=(folder,)) for folder in folders]
    builder = threading.Thread(target=built)
    for thread in (builder, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    opening.set()
    builder.join()
    assert len(found) > 2 * ROUNDS and all(found)
    assert torch.nn.Module.register_parameter is register and torch.get_default_dtype() is dtype
    assert not torch.nn.Linear(2, 2).weight.is_meta


def test_a_failure_leaves_nothing_behind(tmp_path):
    config = AutoConfig.from_pretrained(save(tiny_model("llama"), None, tmp_path / "model"))
    config.hidden_act = "nonsense"
    try:
        skeleton(config, torch.float32)
    except Exception as error:
        assert "nonsense" in str(error)
    else:
        raise AssertionError("it was built")
    assert not torch.nn.Linear(2, 2).weight.is_meta
