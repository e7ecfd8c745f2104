"""A model of transformers, built from a configuration, is pruned to half zeros, and every operator reports its error."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import gramian

torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
model = LlamaForCausalLM(config).eval()
windows = torch.randint(0, 64, (16, 32))  # of a real text, `gramian.calibration` makes them

report = gramian.prune(model, windows[:12], "l0", sparsity=0.5, heldout=windows[12:], progress=False)
print(report)
print(f"perplexity on the windows that calibrated nothing: {gramian.perplexity(model, windows[12:]).value:.2f}")
assert report.sparsity == 0.5
