"""A model of transformers, built from a configuration, pruned to half zeros; what came of every operator is reported."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gramian.adapters import perplexity, prune

torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4)
model = LlamaForCausalLM(config).eval()
windows = torch.randint(0, 64, (16, 32))  # token ids; a real model is calibrated on text

report = prune(model, windows[:12], method="l0", sparsity=0.5, heldout=windows[12:], progress=False)
print(report)
print(f"perplexity on the windows that calibrated nothing: {perplexity(model, windows[12:]).value:.2f}")
assert report.sparsity == 0.5
