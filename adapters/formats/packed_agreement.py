"""Whether stock transformers, with compressed-tensors, computes from packed codes what the model computes.

On windows of random tokens E = |y - y*|_F / |y*|_F <= 1e-4 is asked for, y the logits of what was written and y* the model's,
both in float32.
"""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from gramian.adapters.formats.onnx_agreement import TOLERANCE, Agreement

__all__ = ["check_packed"]

LENGTHS = (1, 9, 32)


def check_packed(folder: Path, model: PreTrainedModel) -> Agreement:
    """Load the folder as any program would, and run both. ValueError where they disagree, or where it cannot be loaded."""
    try:
        found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    except Exception as error:
        raise ValueError(f"transformers cannot load what was packed: {str(error).splitlines()[0]}") from error
    random, vocabulary = torch.Generator().manual_seed(0), model.config.get_text_config().vocab_size
    relative = absolute = 0.0
    with torch.no_grad():
        for length in LENGTHS:
            tokens = torch.randint(0, vocabulary, (1, length), generator=random)
            own = model(tokens.to(model.device)).logits.float().cpu()
            apart = found(tokens).logits.float() - own
            relative = max(relative, float(apart.norm() / own.norm()))
            absolute = max(absolute, float(apart.abs().max()))
    if not relative <= TOLERANCE:
        raise ValueError(
            f"what was packed differs from the model by {relative:.1e} of the logits' norm, and {TOLERANCE:.0e} is allowed"
        )
    return Agreement(relative, absolute, LENGTHS)
