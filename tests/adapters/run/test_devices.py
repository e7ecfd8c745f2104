"""Tensors handed to cupy and back, with stand-ins for a GPU and for cupy: which device, which dtype, no way by the host."""

from __future__ import annotations

import sys
import types
import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from gramian.adapters import devices
from gramian.adapters.models import layers
from gramian.adapters.models.layers import Layer
from gramian.adapters.models.loading import load
from gramian.adapters.run import hooks
from gramian.solvers import Moments

SECOND = torch.device("cuda", 1)


class OnGPU:
    """A tensor as if it were on the second GPU; what is called of it beside its values is noted."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values, self.device, self.dtype = values, SECOND, values.dtype

    def detach(self) -> OnGPU:
        return OnGPU(self.values.detach())

    def float(self) -> OnGPU:
        return OnGPU(self.values.float())

    def to(self, dtype: torch.dtype) -> OnGPU:
        return OnGPU(self.values.to(dtype))


class Cupy(types.ModuleType):
    """A module that knows which device is current when arrays cross over."""

    def __init__(self, available: bool = True) -> None:
        super().__init__("cupy")
        self.current = [0]
        self.crossed: list[tuple[int, torch.dtype]] = []
        self.freed = 0
        self.cuda = SimpleNamespace(is_available=lambda: available, Device=self.device)

    @contextmanager
    def device(self, index: int):
        self.current.append(index)
        yield
        self.current.pop()

    def from_dlpack(self, tensor: OnGPU) -> np.ndarray:
        assert not tensor.values.requires_grad
        self.crossed.append((self.current[-1], tensor.dtype))
        return tensor.values.numpy()

    def get_default_memory_pool(self) -> SimpleNamespace:
        return SimpleNamespace(free_all_blocks=lambda: setattr(self, "freed", self.freed + 1))


@pytest.fixture
def torch_device(monkeypatch) -> list[torch.device]:
    """The devices that have been current in torch, which here has no GPU."""
    stack: list[torch.device] = []

    @contextmanager
    def device(chosen: torch.device):
        stack.append(chosen)
        yield

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: stack[-1].index)
    devices.cupy_module.cache_clear()
    yield stack
    devices.cupy_module.cache_clear()


@pytest.fixture
def cupy(monkeypatch, torch_device) -> Cupy:
    module = Cupy()
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_crosses_on_its_own_device(cupy, torch_device, dtype):
    values = torch.randn(4, 3).to(dtype).T.requires_grad_()  # not contiguous either
    array = devices.solver_array(OnGPU(values))
    np.testing.assert_array_equal(array, values.detach().double().numpy())
    assert cupy.crossed == [(1, torch.float32 if dtype == torch.bfloat16 else dtype)]
    assert torch_device == [SECOND] and cupy.current == [0]
    assert dtype == torch.bfloat16 or array.ctypes.data == values.data_ptr()


def test_cpu_tensors_become_numpy_arrays_without_a_copy():
    values = torch.randn(4, 3, requires_grad=True)
    assert devices.solver_array(values).ctypes.data == values.data_ptr()
    half = torch.randn(3).bfloat16()
    np.testing.assert_array_equal(devices.solver_array(half), half.float().numpy())


def test_without_cupy_tensors_stay_and_one_warning_says_so(monkeypatch, torch_device):
    for absent in (None, Cupy(available=False)):  # not installed; installed, but its CUDA sees no GPU
        monkeypatch.setitem(sys.modules, "cupy", absent)
        devices.cupy_module.cache_clear()
        with pytest.warns(UserWarning, match=r"run on torch CUDA tensors instead.*gramian\[cuda12\].*gramian\[cuda13\]"):
            tensor = devices.solver_array(OnGPU(torch.ones(2).bfloat16()))
        assert isinstance(tensor, OnGPU) and tensor.dtype == torch.bfloat16
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            devices.solver_array(OnGPU(torch.ones(2)))
            assert devices.solver_library(SECOND) == "torch"
            with devices.current_device(SECOND):
                pass
        assert torch_device[-1] == SECOND


def test_an_answer_of_cupy_is_written_without_the_host(cupy, torch_device, monkeypatch):
    """`from_dlpack` is given the array itself, while its device is current."""
    module = nn.Linear(3, 2)
    values = np.arange(6.0).reshape(2, 3)

    class Answer:
        shape, device = (2, 3), SimpleNamespace(id=1)

        def get(self):
            raise AssertionError("copied to the host")

    def from_dlpack(array):
        assert isinstance(array, Answer) and cupy.current[-1] == 1
        return torch.from_numpy(values)

    monkeypatch.setattr(devices, "is_cupy_array", lambda array: isinstance(array, Answer))
    monkeypatch.setattr(torch, "from_dlpack", from_dlpack)
    Layer("it", module).assign(Answer(), torch.bfloat16)
    np.testing.assert_array_equal(module.weight.detach().numpy(), values)


@pytest.mark.parametrize(
    ("kind", "dtype", "products"),
    [
        ("cpu", torch.float32, "float64"), ("cpu", torch.bfloat16, "float64"), ("cuda", torch.float64, "float64"),
        ("cuda", torch.float32, "float32"), ("cuda", torch.bfloat16, "float32"), ("cuda", torch.float16, "float32"),
    ],
)  # fmt: skip
def test_products_are_float32_on_gpus_only(kind, dtype, products):
    assert devices.precision_of_products(torch.device(kind), dtype) == products


def test_moments_of_a_gpu_s_activations(cupy, torch_device, monkeypatch):
    """bfloat16 crosses as float32, is multiplied so with TF32 off, on the tensor's device, and summed in float64."""
    seen = []
    update = Moments.update

    def noted(self, *arrays, products):
        seen.append((products, cupy.current[-1], torch.backends.cuda.matmul.allow_tf32))
        update(self, *arrays, products=products)

    monkeypatch.setattr(Moments, "update", noted)
    inputs = torch.randn(5, 3).bfloat16()
    moments = Moments(3)
    hooks.feed("it", moments, OnGPU(inputs), OnGPU(inputs / 2))
    assert seen == [("float32", 1, False)]
    assert cupy.crossed == [(1, torch.float32)] * 2
    assert moments.gram.dtype == np.float64
    np.testing.assert_allclose(moments.gram, inputs.double().T @ inputs.double(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(4 * moments.drift, moments.gram, rtol=1e-6, atol=1e-6)


def test_what_a_report_says_of_the_place(cupy):
    expected = {"device": "cuda:1", "solvers": "cupy", "products": "float32"}
    assert devices.where(SECOND, torch.bfloat16) == expected
    assert devices.where(torch.device("cpu"), torch.float32) == {"device": "cpu", "solvers": "numpy", "products": "float64"}


def test_both_libraries_give_back_what_they_keep(cupy, monkeypatch):
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    devices.release_cached(torch.device("cpu"))
    assert not emptied and not cupy.freed
    devices.release_cached(SECOND)
    assert emptied == [True] and cupy.freed == 1


def test_a_missing_gpu_says_what_to_do_instead(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr(torch, "empty", refuse)
    expected = "device 'cuda:1' cannot be used: Torch not compiled with CUDA enabled; the CPU works everywhere"
    with pytest.raises(ValueError, match=f"{expected}.*build of torch for CUDA"):
        load("no/model", device="cuda:1")


def test_layers_take_their_hand_over_from_one_place():
    assert layers.solver_array is devices.solver_array is hooks.solver_array
