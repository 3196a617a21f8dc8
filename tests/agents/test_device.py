"""Tests of `agents.device`."""

from __future__ import annotations

import pytest
import torch

from agents.commandline import UsageError
from agents.device import choose_device, choose_precision
from tests.envs.processes import run_script

CPU = torch.device("cpu")


def test_a_device_that_is_named_is_taken():
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("there_is", [False, True])
def test_auto_is_the_gpu_where_there_is_one(monkeypatch, there_is):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there_is)
    assert choose_device("auto").type == ("cuda" if there_is else "cpu")


def test_a_gpu_where_there_is_none_is_refused_with_what_would_work(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="finds no GPU here; use --device cpu") as error:
        choose_device("cuda")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("cuda").type == "cuda"


ABILITIES = [
    ({"amx_bf16": True, "avx512_bf16": False}, True),
    ({"amx_bf16": False, "avx512_bf16": True}, True),
    ({"amx_bf16": True, "avx512_bf16": True}, True),
    ({"amx_bf16": False, "avx512_bf16": False, "avx512_f": True}, False),
    ({"architecture": "aarch64"}, False),
    ({}, False),
]


@pytest.mark.parametrize(("abilities", "fast"), ABILITIES)
def test_auto_is_bfloat16_where_the_processor_computes_with_it(monkeypatch, abilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert choose_precision("auto", CPU) == (torch.bfloat16 if fast else torch.float32)
    # What is asked for is taken, wherever.
    assert choose_precision("float32", CPU) == torch.float32
    assert choose_precision("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize("fast", [False, True])
def test_auto_is_bfloat16_where_the_gpu_computes_with_it(monkeypatch, fast):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast)
    gpu = torch.device("cuda")
    assert choose_precision("auto", gpu) == (torch.bfloat16 if fast else torch.float32)
    assert choose_precision("float32", gpu) == torch.float32


KEEP_MEMORY = """
import torch
from agents.device import keep_memory
keep_memory()
for _ in range(3):
    numbers = torch.arange(4_000_000, dtype=torch.float64)
    assert float(numbers.sum()) == 4_000_000 * 3_999_999 / 2
    keep_memory()
print("well")
"""


def test_memory_may_be_kept_more_than_once(tmp_path):
    # It is for good: in a process of its own.
    assert run_script(KEEP_MEMORY, tmp_path) == "well\n"
