"""Methods of weights whose answers have the pattern's zeros themselves, as many as it asks for.

Left out are those whose weights are a product or a sum, of which a factor or a summand has the zeros, and those on a grid,
where the code of a kept weight may be zero too.
"""

from __future__ import annotations

from gramian.adapters.methods.registry import WEIGHT_METHODS

EXACT = {
    name: method
    for name, method in WEIGHT_METHODS.items()
    if not (method.wrapped or method.factored or name == "sparsegpt-quantised")
}
