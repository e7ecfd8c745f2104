"""Safetensors files read and written with numpy alone, against the package that defines the format."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors import safe_open
from safetensors.numpy import load_file, save, save_file

from gramian.adapters.tensor_files import KINDS, read_tensors, tensor_names, write_tensors

some_arrays = st.sampled_from(sorted(KINDS.values())).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
contents = st.dictionaries(st.text("abc.é", min_size=1, max_size=4), some_arrays, min_size=1, max_size=3)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype
        and one[name].shape == other[name].shape
        and one[name].tobytes() == other[name].tobytes()
        for name in one
    )


@given(contents)
def test_the_package_reads_what_is_written(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("files") / "a.safetensors"
    write_tensors(path, content, {"said": "ü"})
    assert same(load_file(path), content)
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"said": "ü"}


@given(contents)
def test_what_the_package_writes_is_read(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("files") / "a.safetensors"
    save_file(content, path, {"said": "ü"})
    assert same(read_tensors(path, content.keys()), content)
    kinds, metadata = tensor_names(path)
    assert {name: KINDS[kind] for name, kind in kinds.items()} == {name: each.dtype.str for name, each in content.items()}
    assert metadata == {"said": "ü"}


def file_of(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(**changed) -> dict:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changed}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        (2**63).to_bytes(8, "little"),
        file_of(b"{}")[:-1],
        file_of(b"nonsense"),
        file_of(b"\xff{}"),
        file_of([1]),
        file_of(b"[" * 10**5),
        file_of({"__metadata__": {"said": 1}}),
        file_of({"__metadata__": "said"}),
        file_of({"a": 1}, b"12345678"),
        file_of(entry(), b"1234567"),
        file_of(entry(), b"123456789"),
        file_of(entry(data_offsets=[4, 12]), b"x" * 12),
        file_of(entry(data_offsets=[8, 0]), b"x" * 8),
        file_of(entry(data_offsets=[-8, 0])),
        file_of(entry(data_offsets=[0]), b"x" * 8),
        file_of(entry(shape=[3]), b"x" * 8),
        file_of(entry(shape=[-2]), b"x" * 8),
        file_of(entry(shape=[2.0]), b"x" * 8),
        file_of(entry(shape=[True, 2]), b"x" * 8),
        file_of(entry(dtype="F8"), b"x" * 8),
        file_of(entry(dtype=["F32"]), b"x" * 8),
        file_of({**entry(), "b": entry()["a"]}, b"x" * 8),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors") as raised:
        read_tensors(path, ["a"])
    assert "\n" not in str(raised.value)


def test_every_cut_of_a_file_is_refused(tmp_path):
    whole, path = save({"a": np.arange(3.0)}), tmp_path / "a.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.safetensors"):
            read_tensors(path, ["a"])
