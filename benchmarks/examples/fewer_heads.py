"""Heads and hidden channels are removed: the model becomes smaller, is saved, and loads again with the same answers."""

from tempfile import TemporaryDirectory

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import gramian

torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
model = LlamaForCausalLM(config).eval()
windows = torch.randint(0, 64, (16, 32))  # token ids; a real model is calibrated on text

report = gramian.prune(model, windows, "numerical", ratio=0.3, progress=False)
print(report)
with TemporaryDirectory() as folder, torch.no_grad():
    gramian.save(model, None, folder, report=report)
    again, _ = gramian.load(folder)
    assert torch.allclose(again(windows).logits, model(windows).logits, atol=1e-5)
before, after = report.parameters
assert after == sum(parameter.numel() for parameter in again.parameters()) < before
