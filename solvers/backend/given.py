"""What users give, as arrays of one library on one device; or one sentence: what it is, beside what, and the way out."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from array_api_compat import is_array_api_obj, is_numpy_array, is_torch_array

from gramian.solvers.backend._xp import Array, as_floating, detached, device, namespace, same_library

__all__ = ["given", "given_floats", "given_together"]

PROBLEM = "the problem's weight"


def given(name: str, value: object, like: Array | None = None, beside: str = PROBLEM) -> Array:
    """Return what a user gave as an array that solvers compute on.

    Lists, data frames and whatever else has `__array__` are in the library of `like`, which else is numpy. Subclasses of
    numpy's arrays and arrays of the other byte order become plain ones, extended precision is rounded to float64, and float8
    widened. Nothing else is copied. like: an array that the result is to be computed with, which errors call `beside`.

    Raises
    ------
    TypeError
        For what solvers cannot compute on, and for arrays of another library or on another device than `like`.
    ValueError
        For masked entries, and for rows of different lengths.
    """
    own = is_array_api_obj(value)  # whether it has a library, and is not to be moved to another
    array = plain(name, value)
    if like is None:
        return array
    if not own and not is_numpy_array(like):
        return namespace(like).asarray(array, device=device(like))
    same_library(array, like, (name, beside))
    if device(array) != device(like):
        raise TypeError(f"{name} is on {device(array)} but {beside} is on {device(like)}: move one of them")
    return array


def given_floats(name: str, value: object, like: Array) -> Array:
    """Return the same in the dtype of `like`, the problem's weight."""
    return as_floating(given(name, value, like), like=like)


def given_together(
    values: Mapping[str, object], optional: Collection[str] = (), like: Array | None = None, beside: str = PROBLEM
) -> dict[str, Array]:
    """Return arrays that are computed with each other, by name, and with `like`, if there is such an array; lists and data
    frames in the library of the others. Of those that are optional, None is left out."""
    named = {name: value for name, value in values.items() if value is not None or name not in optional}
    if like is None and (own := next((name for name, value in named.items() if is_array_api_obj(value)), None)):
        like, beside = given(own, named[own]), own
    return {name: given(name, value, like, beside) for name, value in named.items()}


def plain(name: str, value: Array) -> Array:
    """Return a dense array of real numbers or truth values, of whatever library."""
    library = type(value).__module__.partition(".")[0]
    if library in ("jax", "jaxlib"):
        raise TypeError(f"{name} is a JAX array, which cannot be written to as solvers do: pass np.asarray({name})")
    if library == "scipy" and hasattr(value, "toarray"):
        raise TypeError(f"{name} is a sparse matrix of scipy but solvers compute on dense arrays: pass {name}.toarray()")
    if is_torch_array(value):
        return plain_tensor(name, detached(value))
    if not is_array_api_obj(value) or is_numpy_array(value):
        return plain_numpy(name, value)
    xp = namespace(value)
    if not xp.isdtype(value.dtype, ("bool", "integral", "real floating")):
        refuse(name, value.dtype)
    return value


def plain_numpy(name: str, value: object) -> np.ndarray:
    """Return numpy's own kind of array."""
    if isinstance(value, np.ma.MaskedArray):
        if masked := int(np.sum(np.ma.getmaskarray(value))):
            raise ValueError(f"{name} has {masked} masked entries: fill them, as in {name}.filled(0), or leave out their rows")
        value = value.data
    if value is None or isinstance(value, str | bytes | type):
        raise TypeError(f"{name} must be an array but is {value!r}")
    try:
        array = np.asarray(value)
    except ValueError as error:  # its own message tells of shapes that numpy thought of
        raise ValueError(f"{name} is no array, because its rows differ in length") from error
    if array.dtype.kind not in "biuf":
        refuse(name, array.dtype)
    dtype = np.dtype(np.float64) if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)


def plain_tensor(name: str, value: Array) -> Array:
    """Return a dense tensor with numbers in it."""
    kind = str(value.layout).removeprefix("torch.")
    if value.is_quantized:
        raise TypeError(f"{name} is a quantised tensor but solvers compute on floating numbers: pass {name}.dequantize()")
    if value.is_nested:
        raise TypeError(f"{name} is a nested tensor but solvers compute on dense ones: pass {name}.to_padded_tensor(0)")
    if kind != "strided":
        raise TypeError(f"{name} is a {kind} tensor but solvers compute on dense ones: pass {name}.to_dense()")
    if value.device.type == "meta":
        raise TypeError(f"{name} is on the meta device, where tensors hold no numbers: load it first")
    if value.device.type == "mps":
        raise TypeError(f"{name} is on mps, which has no float64, in which certificates are computed: pass {name}.cpu()")
    if value.dtype.is_complex:
        refuse(name, value.dtype)
    # float8 has no arithmetic of its own, and float32 holds it exactly
    return value.float() if value.dtype.is_floating_point and value.dtype.itemsize == 1 else value


def refuse(name: str, dtype: object) -> None:
    """Raise TypeError for an array whose entries are no real numbers."""
    kind = str(dtype).rpartition(".")[2]
    if kind.startswith("complex"):
        raise TypeError(
            f"{name} is {kind} but least squares are real here: pass {name}.real, or real and imaginary parts as rows"
        )
    if kind == "object":
        raise TypeError(f"{name} holds Python objects but must hold numbers: convert it, as in np.asarray({name}, dtype=float)")
    raise TypeError(f"{name} is {kind} but must hold numbers")
