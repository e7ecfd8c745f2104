"""Checkpoints larger than memory: a block is read from safetensors files for its turn, and what is written to it is journaled.

Memory holds the embeddings, whatever else outside the blocks is needed to enter them, and one block.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Set
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.devices import all_finite, release_cached, usable_device
from gramian.adapters.drafts import new_directory
from gramian.adapters.files import Saved, plain
from gramian.adapters.models.block_lists import run_paths, walks_by_block
from gramian.adapters.models.checkpoints import check_size
from gramian.adapters.models.configurations import read_config
from gramian.adapters.models.conversions import Conversions
from gramian.adapters.models.factored_weights import refuse_adapter
from gramian.adapters.models.loading import check_directory, readable, storage_of
from gramian.adapters.models.origins import BESIDE, GENERATION, remember
from gramian.adapters.models.own_classes import built_class
from gramian.adapters.models.placeless import drop_pooler, refuse_placeless
from gramian.adapters.models.places import locate
from gramian.adapters.models.settings_files import write_config, write_generation
from gramian.adapters.models.shrink import cut_units
from gramian.adapters.models.side_files import copy_side_files
from gramian.adapters.models.stored_tensors import StoredTensors, WrittenTensors
from gramian.adapters.models.tokenizers import load_tokenizer
from gramian.adapters.models.widths import state_widths
from gramian.adapters.pages.beside import write_results
from gramian.adapters.run.block_records import restore
from gramian.adapters.run.blocks import put, tie
from gramian.adapters.run.digests import add_tensor
from gramian.adapters.run.journal import Journal
from gramian.adapters.run.skeletons import skeleton

__all__ = ["Stream", "Streamed", "open_checkpoint"]

LOG = logging.getLogger(__name__)
SHARD_BYTES = 2**31  # of a file of tensors that are only copied


@dataclass(eq=False)
class Stream:
    """A checkpoint opened to be pruned: its model without the blocks' weights, its tokeniser, and its blocks."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    blocks: Streamed

    def save(
        self,
        out: Path,
        journal: Journal,
        passed: str,
        keep: Mapping[str, np.ndarray],
        report: Mapping[str, Any] | Saved,
        overwrite: bool = False,
    ) -> Path:
        """Save the pruned model, block by block: stored tensors with what the pass called `passed` has written, cut to the
        units of `keep`. After an error `out` is what it was before."""
        out = out.expanduser().resolve()
        with new_directory(out, overwrite) as draft:
            written, done = WrittenTensors(draft), set[str]()
            for index, path in enumerate(self.blocks.paths[: len(journal.finished(passed))]):
                block = self.blocks.acquire(index)
                restore(journal.read(passed, index), self.model, self.blocks.place)
                inside = {name: kept for name, kept in keep.items() if name.startswith(f"{path}.")}
                for name, kept in inside.items():
                    cut_units(self.model, name, kept)
                found = {f"{path}.{name}": value for name, value in block.state_dict().items()}
                rounded = {name: self.blocks.rounded(value.cpu()) for name, value in found.items()}
                written.add(self.blocks.conversions.stored(rounded))
                done |= set(found)
                self.blocks.commit(index)
            for group in self.blocks.rest(done):
                written.add(self.blocks.conversions.stored(group))
            written.finish()
            if keep:
                state_widths(self.model)
            self.model.config.architectures = [type(self.model).__name__]
            write_config(self.model.config, draft)
            write_generation(self.model, draft)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(draft)
            copy_side_files(self.model, draft, self.tokenizer is not None)
            write_results(draft, plain(report))
        return out


def open_checkpoint(source: str | Path, *, dtype: str = "auto", device: str | torch.device = "cpu") -> Stream:
    """Open a checkpoint whose blocks are read one at a time.

    The tensors that a run leaves are the same as `load`, `prune` and `save` give. source: a directory or hub id with stock
    safetensors weights, whose names are those of the model. dtype: as in `load`. device: where blocks are worked on, in float32
    on a CPU and in the storage dtype elsewhere; the rest of the model is on the CPU. Every tensor is read once beforehand, so
    that one that is missing or not finite is known at once.

    ValueError: weights of another form, an encoder-decoder model, tensors that are missing, misshapen or not finite.
    """
    where, folder = usable_device(device), folder_of(source)
    refuse_adapter(folder)
    held, place = check_directory(folder), locate(folder)
    with readable(source, place):
        config = read_config(place, trust_remote_code=False)
    if getattr(config, "quantization_config", None):
        raise ValueError(f"{source}: its weights are quantised, expected floating-point weights")
    stored = StoredTensors(folder)
    with readable(source, place):
        storage = storage_of(dtype, config.dtype) or stored.dtype
        check_size(lambda: built_class(config)(deepcopy(config)), held, source)
        model = skeleton(config, torch.float32 if where.type == "cpu" else storage)
        model.config.dtype = storage
        if (folder / GENERATION).is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
        remember(model, folder)
        tokenizer = load_tokenizer(place, trust_remote_code=False)
    if not walks_by_block(model):
        raise ValueError(f"{source} cannot be streamed: an encoder-decoder model runs as one block, so prune it from memory")
    try:
        blocks = Streamed(model, stored, storage, where)
        blocks.check()
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    blocks.load_rest()
    return Stream(model, tokenizer, blocks)


class Streamed:
    """Blocks that are read from a checkpoint for their turn. What is written to them is kept by the journal of the run."""

    elsewhere = True

    def __init__(self, model: PreTrainedModel, stored: StoredTensors, storage: torch.dtype, place: torch.device) -> None:
        self.model, self.stored, self.storage, self.place = model, stored, storage, place
        self.running, self.paths = model.dtype, run_paths(model)
        self.conversions = Conversions(model, stored.files)
        self.digest = ""  # of all tensors, once they are checked
        self.expected: dict[str, torch.Size] = {}  # without the second names of tied tensors, which are not stored
        self.second: list[tuple[str, str]] = []
        self.present: int | None = None  # the block that is in memory
        self.untie()
        converted = self.conversions.sources
        drop_pooler(model, (name for name in model.state_dict() if name not in converted and self.key(name) is None))
        first: dict[int, str] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if first.setdefault(id(tensor), name) == name:
                self.expected[name] = tensor.shape
            else:
                self.second.append((name, first[id(tensor)]))

    def untie(self) -> None:
        """Give a parameter of its own to every name that the configuration ties to another and the weights do not, as stock
        classes do when they load them."""
        first: dict[int, str] = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            known = first.setdefault(id(tensor), name)
            one, other = self.key(known), self.key(name)
            if known != name and one is not None and other is not None and not self.stored.alike(one, other):
                LOG.warning(f"{name} and {known} are one by the configuration but differ in the weights: both are kept")
                put(self.model, name, torch.empty_like(tensor, device="meta"))

    def __enter__(self) -> Streamed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self.present is not None:
            self.commit(self.present)
        return None

    def acquire(self, index: int) -> nn.Module:
        """Read a block's weights."""
        path = self.paths[index]
        self.load(self.names(path), self.place)
        self.present = index
        return self.model.get_submodule(path)

    def commit(self, index: int) -> None:
        """Free the memory of a block's weights, whose shapes remain."""
        path = self.paths[index]
        for name, value in self.model.get_submodule(path).state_dict(keep_vars=True).items():
            if f"{path}.{name}" in self.expected or isinstance(value, nn.Parameter):
                put(self.model, f"{path}.{name}", value.detach().to("meta"))
        self.present = None
        release_cached(self.place)

    def names(self, path: str) -> list[str]:
        """The full names of a block's stored tensors."""
        return [name for name in self.expected if name.startswith(f"{path}.")]

    def key(self, name: str) -> str | None:
        """Find the checkpoint's name of a tensor: with or without the model's prefix, or of any tensor that is tied to it."""
        names = [name, *(second for second, one in self.second if one == name)]
        prefix = f"{self.model.base_model_prefix}."
        return next((key for each in names for key in (each, each.removeprefix(prefix)) if key in self.stored.files), None)

    def check(self) -> None:
        """Raise ValueError for the first tensor that is missing, of another shape, not finite, or unlike one tied to it."""
        digest = hashlib.sha256()
        for name, shape in self.expected.items():
            if name not in self.conversions.sources and self.key(name) is None:
                raise ValueError(f"weights are missing under the model's names, such as {name}: prune without streaming")
            value = self.read(name)
            if value.shape != shape:
                raise ValueError(f"{name} is {tuple(value.shape)} in the weights but {tuple(shape)} by the configuration")
            if value.is_floating_point() and not all_finite(value.to(self.storage)):
                raise ValueError(f"parameter {name} holds NaN or Inf in {str(self.storage).removeprefix('torch.')}")
            add_tensor(digest, name, self.rounded(value))
        self.digest = digest.hexdigest()
        used = {self.key(name) for name in self.expected} | {second for second, _ in self.second} | self.conversions.keys
        unknown = set(self.stored.files) - used
        refuse_placeless(self.model, self.model.config, unknown, self.stored.shapes(unknown))

    def read(self, name: str) -> torch.Tensor:
        """Read a tensor of the model, which may be in several of the checkpoint's."""
        if name in self.conversions.sources:
            return self.conversions.value(name, self.stored.read)
        return self.stored.read(self.key(name) or name)

    def value(self, name: str) -> torch.Tensor:
        """Read a tensor as it is stored in the result unless it is pruned."""
        return self.rounded(self.read(name))

    def rounded(self, value: torch.Tensor) -> torch.Tensor:
        """Round a tensor to the storage dtype, unless it holds whole numbers."""
        return value.to(self.storage) if value.is_floating_point() else value

    def load(self, names: Iterable[str], device: torch.device) -> None:
        """Put tensors into the model, in the dtype that it runs in."""
        for name in names:
            value = self.value(name).to(device)
            put(self.model, name, value.to(self.running) if value.is_floating_point() else value)
            for second, first in self.second:
                if first == name:
                    tie(self.model, second, name)

    def outside(self) -> list[str]:
        """The names of the tensors that are in no block."""
        inside = tuple(f"{path}." for path in self.paths)
        return [name for name in self.expected if not name.startswith(inside)]

    def load_rest(self) -> None:
        """Load the tensors outside the blocks, except the head, which no block needs."""
        base = "" if self.model.base_model is self.model else f"{self.model.base_model_prefix}."
        self.load([name for name in self.outside() if name.startswith(base)], torch.device("cpu"))

    def rest(self, written: Set[str]) -> Iterator[dict[str, torch.Tensor]]:
        """The tensors that are not written yet, as they are stored, in groups of a file."""
        some: dict[str, torch.Tensor] = {}
        for name in (name for name in self.expected if name not in written):
            some[name] = self.value(name)
            if sum(tensor.nbytes for tensor in some.values()) >= SHARD_BYTES:
                yield some
                some = {}
        if some:
            yield some


def folder_of(source: str | Path) -> Path:
    """Find the directory of a stock safetensors checkpoint, in the hub's cache for a hub id. Errors are those of `load`."""
    found = locate(source)
    if found.gguf:
        raise ValueError(f"{source} cannot be streamed: GGUF weights are read whole, safetensors weights one by one")
    if not found.local:
        found = locate(snapshot_download(found.name, allow_patterns=["*.safetensors", *BESIDE]))
    return Path(found.name)
