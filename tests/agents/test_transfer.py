"""Tests of `agents.transfer` on a CPU; for a GPU, see test_fake_cuda.py and test_cuda.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from agents.transfer import Staging, pinned, stream_of, upload, use_stream

CPU = torch.device("cpu")


def test_on_a_cpu_nothing_is_copied():
    tensor = torch.arange(3)
    assert upload(tensor, CPU) is tensor
    arrays = {"obs": np.arange(6.0).reshape(2, 3), "rewards": tensor}
    sent = Staging(arrays, CPU).send(arrays)
    assert sent["obs"].data_ptr() == arrays["obs"].ctypes.data
    assert sent["rewards"] is tensor


def test_a_pinned_tensor_is_a_copy():
    tensor = torch.arange(3)
    copy = pinned(tensor)
    assert torch.equal(copy, tensor)
    assert copy.data_ptr() != tensor.data_ptr()


def test_on_a_cpu_there_are_no_streams():
    assert stream_of(CPU) is None
    with use_stream(None):
        pass


@pytest.mark.parametrize("as_array", [np.asarray, torch.from_numpy], ids=["arrays", "tensors"])
def test_arrays_of_several_types_are_staged_at_aligned_places(as_array):
    """On the meta device, which has no numbers, places and shapes are the same as on a GPU."""
    arrays = {
        "bytes": as_array(np.arange(5, dtype=np.uint8)),
        "doubles": as_array(np.arange(6.0).reshape(2, 3)),
        "flags": as_array(np.array([True, False])),
    }
    staging = Staging(arrays, torch.device("meta"))
    sent = staging.send(arrays)
    assert list(sent) == list(arrays)
    for name, array in arrays.items():
        assert sent[name].device.type == "meta"
        assert tuple(sent[name].shape) == tuple(array.shape)
        place = staging._places[name]
        assert torch.equal(place, torch.as_tensor(array))
        assert place.data_ptr() % 16 == staging._here.data_ptr() % 16


def test_tensors_on_the_device_are_passed_on():
    device = torch.device("meta")
    arrays = {"obs": torch.zeros(2, 3, device=device), "starts": np.ones(2, np.bool_)}
    sent = Staging(arrays, device).send(arrays)
    assert sent["obs"] is arrays["obs"]
    assert sent["starts"].device == device
