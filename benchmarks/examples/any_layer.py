"""A layer of any torch model: what flows into it is captured, two of every four weights are kept, the layer gets the answer."""

import torch

from gramian.adapters import capture
from gramian.solvers import NM, TopK, l0_admm, sparsegpt

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 16))
with capture(model, ["0", "2"]) as layers, torch.no_grad():
    model(torch.randn(1000, 64))

first, last = layers["0"].problem(), layers["2"].problem()
layers["0"].assign(l0_admm(first, TopK(0.5)).weights)
solution = sparsegpt(last, NM(2, 4))
layers["2"].assign(solution.weights)
print(f"0: {float((model[0].weight == 0).float().mean()):.1%} zeros")
print(f"2: relative error {last.relative_error(solution.weights):.4f}, {solution.status.value}")
assert ((model[2].weight.reshape(16, 32, 4) != 0).sum(dim=2) <= 2).all()
