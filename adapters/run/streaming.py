"""Checkpoints larger than memory: a block is read from safetensors files for its turn, and written out after it.

    with stream_model("checkpoint", "sparse") as stream:
        stream.report = prune_weights(stream.model, tokens, device=stream.placement).to_dict()

Memory holds the embeddings, whatever else outside the blocks is needed to enter them, and one block.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import AutoConfig, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.devices import release_cached, usable_device
from gramian.adapters.files import Saved, check_output, new_directory, plain, write_json
from gramian.adapters.models.families import blocks_of, family_named, family_of
from gramian.adapters.models.loading import DTYPES, load_tokenizer, mend_generation, refuse_loss
from gramian.adapters.models.places import WEIGHTS, locate
from gramian.adapters.models.tasks import AUTO_CLASSES, kind_of
from gramian.adapters.models.widths import WIDTHS
from gramian.adapters.run.placement import Placement

__all__ = ["Stream", "StreamedPlacement", "stream_model"]

SHARD_BYTES = 2**31  # of a file of tensors that are only copied


@dataclass
class Stream:
    """A model without its blocks' weights, its tokeniser, the placement that brings the weights, and the report to be saved."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    placement: StreamedPlacement
    report: Mapping[str, Any] | Saved | None = None


@contextmanager
def stream_model(
    source: str | Path, out: str | Path, *, dtype: str = "auto", device: str | torch.device = "cpu", overwrite: bool = False
) -> Iterator[Stream]:
    """Open a checkpoint that is pruned block by block, and saved as `out` when the context ends without an error.

    The tensors are the same as `load`, `prune_weights` and `save` give. After an error `out` is what it was before.
    source: a directory or hub id with stock safetensors weights, whose names are those of the model. dtype: as in
    `load`. device: where blocks are worked on, in float32 on a CPU and in the storage dtype elsewhere; the rest of the
    model is on the CPU. Every tensor is read once beforehand, so that one that is missing or not finite is known at once.

    ValueError: weights of another form, a family without a row, tensors that are missing, misshapen or not finite.
    """
    check_output(out, overwrite)
    where, folder = usable_device(device), folder_of(source)
    config = AutoConfig.from_pretrained(folder)
    family_named(config.model_type)
    if getattr(config, "quantization_config", None):
        raise ValueError(f"{source}: its weights are quantised, expected floating-point weights")
    stored = StoredTensors(folder)
    storage = storage_of(dtype, config.dtype) or stored.dtype
    model = skeleton(config, torch.float32 if where.type == "cpu" else storage)
    model.config.dtype = storage
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    mend_generation(model)
    tokenizer = load_tokenizer(locate(folder), trust_remote_code=False)
    with new_directory(Path(out).expanduser().resolve(), overwrite) as draft:
        placement = StreamedPlacement(model, stored, draft, storage, where)
        placement.check()
        placement.load_rest()
        stream = Stream(model, tokenizer, placement)
        yield stream
        placement.finish()
        model.config.save_pretrained(draft)
        if model.can_generate():
            model.generation_config.save_pretrained(draft)
        if tokenizer is not None:
            tokenizer.save_pretrained(draft)
        if stream.report is not None:
            write_json(draft / "gramian.json", plain(stream.report))


class StreamedPlacement(Placement):
    """Where blocks are worked on that have no other home than a checkpoint: each is read when it is taken, and written to
    `draft` when its turn ends."""

    def __init__(
        self, model: PreTrainedModel, stored: StoredTensors, draft: Path, storage: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(device)
        self.model, self.stored, self.draft, self.storage = model, stored, draft, storage
        self.running = model.dtype
        self.expected: dict[str, torch.Tensor] = {}  # without the second names of tied tensors, which are not stored
        self.second: list[tuple[str, str]] = []
        first: dict[int, str] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if first.setdefault(id(tensor), name) == name:
                self.expected[name] = tensor
            else:
                self.second.append((name, first[id(tensor)]))
        path = family_of(model).blocks
        self.prefixes = {block: f"{path}.{index}." for index, block in enumerate(blocks_of(model))}
        self.files: list[dict[str, int]] = []  # bytes of every tensor, by name, of the files written so far

    def key(self, name: str) -> str | None:
        """Find the checkpoint's name of a tensor: with or without the model's prefix, or of any tensor that is tied to it."""
        names = [name, *(second for second, one in self.second if one == name)]
        prefix = f"{self.model.base_model_prefix}."
        return next((key for each in names for key in (each, each.removeprefix(prefix)) if key in self.stored.files), None)

    def check(self) -> None:
        """Raise ValueError for the first tensor that is missing, of another shape, not finite, or unlike one tied to it."""
        for name, tensor in self.expected.items():
            if (key := self.key(name)) is None:
                raise ValueError(f"weights are missing under the model's names, such as {name}: prune without streaming")
            value = self.stored.read(key)
            if value.shape != tensor.shape:
                expected = f"{tuple(tensor.shape)} by the configuration"
                raise ValueError(f"{name} is {tuple(value.shape)} in the weights but {expected}")
            if value.is_floating_point() and not bool(torch.isfinite(value.to(self.storage)).all()):
                raise ValueError(f"parameter {name} holds NaN or Inf in {str(self.storage).removeprefix('torch.')}")
        used = {self.key(name) for name in self.expected} | {second for second, _ in self.second}
        refuse_loss(self.model, self.model.config, set(self.stored.files) - used, strict=False)
        for second, name in self.second:
            if second in self.stored.files and not self.stored.read(second).equal(self.stored.read(self.key(name) or name)):
                raise ValueError(f"{second} and {name} are one by the configuration but differ in the weights")

    def value(self, name: str) -> torch.Tensor:
        """Read a tensor as it is stored in the result unless it is pruned."""
        return self.rounded(self.stored.read(self.key(name) or name))

    def rounded(self, value: torch.Tensor) -> torch.Tensor:
        """Round a tensor to the storage dtype, unless it holds whole numbers."""
        return value.to(self.storage) if value.is_floating_point() else value

    def load(self, names: Iterable[str], device: torch.device) -> None:
        """Put tensors into the model, in the dtype that it runs in."""
        for name in names:
            value = self.value(name).to(device)
            put(self.model, name, value.to(self.running) if value.is_floating_point() else value)

    def load_rest(self) -> None:
        """Load the tensors outside the blocks, except the head, which no block needs."""
        inside = tuple(self.prefixes.values())
        outside = [name for name in self.expected if not name.startswith(inside)]
        base = f"{self.model.base_model_prefix}."
        self.load([name for name in outside if name.startswith(base)], torch.device("cpu"))

    @contextmanager
    def visit(self, block: nn.Module) -> Iterator[None]:
        """Keep a block's weights in memory while the context is open, and write them at its end."""
        names = [name for name in self.expected if name.startswith(self.prefixes[block])]
        assert self.device is not None
        try:
            self.load(names, self.device)
            yield
            found = self.model.state_dict()
            self.write({name: self.rounded(found[name].cpu()) for name in names})
        finally:
            for name in names:
                put(self.model, name, self.expected[name].detach())
            release_cached(self.device)

    def write(self, tensors: dict[str, torch.Tensor]) -> None:
        """Write one more file of the result."""
        path = self.draft / f"{len(self.files) + 1:05}.safetensors"
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
        except SafetensorError as error:  # safetensors reports a full disk as its own error
            raise OSError(f"writing {path.name} failed: {error}") from error
        self.files.append({name: tensor.nbytes for name, tensor in tensors.items()})

    def finish(self) -> None:
        """Copy the tensors that are in no file yet, name the files as sharded checkpoints do, and write their index."""
        done = {name for file in self.files for name in file}
        some: dict[str, torch.Tensor] = {}
        for name in self.expected:
            if name not in done:
                some[name] = self.value(name)
                if sum(tensor.nbytes for tensor in some.values()) >= SHARD_BYTES:
                    self.write(some)
                    some = {}
        if some:
            self.write(some)
        homes: dict[str, str] = {}
        for number, file in enumerate(self.files, start=1):
            name = f"model-{number:05}-of-{len(self.files):05}.safetensors"
            (self.draft / f"{number:05}.safetensors").rename(self.draft / name)
            homes |= dict.fromkeys(file, name)
        total = sum(size for file in self.files for size in file.values())
        write_json(self.draft / WEIGHTS[1], {"metadata": {"total_size": total}, "weight_map": dict(sorted(homes.items()))})


class StoredTensors:
    """The tensors of a safetensors checkpoint, which are read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def files(self) -> dict[str, str]:
        """The file that holds each tensor; ValueError where the checkpoint's own list cannot be read."""
        single, index = (self.folder / name for name in WEIGHTS)
        try:
            if not single.is_file():
                return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
            with safe_open(single, framework="pt") as file:
                return dict.fromkeys(file.keys(), single.name)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder}: its weights cannot be read: {type(error).__name__}: {error}") from error

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating-point tensor."""
        return next((value.dtype for name in self.files if (value := self.read(name)).is_floating_point()), torch.float32)

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor; ValueError where it cannot be read."""
        try:
            with safe_open(self.folder / self.files[name], framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.folder}: {name} cannot be read: {error}") from error


def folder_of(source: str | Path) -> Path:
    """Find the directory of a stock safetensors checkpoint, in the hub's cache for a hub id. Errors are those of `load`."""
    found = locate(source)
    if found.gguf:
        raise ValueError(f"{source} cannot be streamed: GGUF weights are read whole, safetensors weights one by one")
    if not found.local:
        found = locate(snapshot_download(found.name, allow_patterns=["*.safetensors", "*.json", "*.txt", "*.model"]))
    folder = Path(found.name)
    if (folder / WIDTHS).is_file():
        raise ValueError(f"{source} cannot be streamed: its widths are recorded beside its configuration")
    return folder


def storage_of(dtype: str, declared: Any) -> torch.dtype | None:
    """Return the requested dtype, or the one that the configuration declares; None where it declares none."""
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    return getattr(torch, str(declared if dtype == "auto" else dtype).removeprefix("torch."), None)


def skeleton(config: Any, dtype: torch.dtype) -> PreTrainedModel:
    """Build the model in eval mode, with its buffers as they are computed and its parameters without memory."""
    register = nn.Module.register_parameter

    def without_memory(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        register(module, name, parameter)

    nn.Module.register_parameter = without_memory  # type: ignore[method-assign, assignment]
    try:
        model: PreTrainedModel = AUTO_CLASSES[kind_of(config)].from_config(config, dtype=dtype)
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
    model.requires_grad_(False)
    model.train(False)
    return model


def put(model: nn.Module, name: str, value: torch.Tensor) -> None:
    """Put a tensor where the model has a parameter or a buffer of that name."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    if leaf in module._parameters:
        module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
    else:
        module._buffers[leaf] = value
