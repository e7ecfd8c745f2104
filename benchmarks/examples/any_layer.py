"""Layers of any torch model: `capture` sees what flows into them, a solver prunes each, and the layers get the answers."""

import torch

import gramian
from gramian.solvers import NM, TopK, l0_admm, sparsegpt

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 16))
with gramian.capture(model, ["0", "2"]) as layers, torch.no_grad():
    model(torch.randn(1000, 64))

first, last = layers["0"].problem(), layers["2"].problem()
half = l0_admm(first, TopK(0.5))
pairs = sparsegpt(last, NM(2, 4))  # at most two of every four neighbours in a row are kept
layers["0"].assign(half.weights)
layers["2"].assign(pairs.weights)
print(f"0: {float((model[0].weight == 0).float().mean()):.1%} zeros, relative error {half.certificate.relative_error:.4f}")
print(f"2: {pairs.status.value}, relative error {pairs.certificate.relative_error:.4f}")
assert (model[0].weight == 0).float().mean() == 0.5
assert ((model[2].weight.reshape(16, 32, 4) != 0).sum(dim=2) <= 2).all()
