"""Heads and hidden channels removed: the model is smaller, is saved, and loads again with the same answers."""

from tempfile import TemporaryDirectory

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gramian.adapters import count_parameters, load, prune_units, save

torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
model = LlamaForCausalLM(config).eval()
windows = torch.randint(0, 64, (16, 32))

before = count_parameters(model)
report = prune_units(model, windows, method="numerical", ratio=0.3, progress=False)
print(report)
with TemporaryDirectory() as folder, torch.no_grad():
    save(model, None, folder, report=report.to_dict())
    again, _ = load(folder)
    assert torch.allclose(again(windows).logits, model(windows).logits, atol=1e-5)
print(f"{before:,} parameters, then {count_parameters(again):,}")
assert count_parameters(again) < before
