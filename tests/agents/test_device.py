"""Tests of `agents.device`."""

from __future__ import annotations

import pytest
import torch

from agents import AgentError
from agents.device import choose_device, choose_precision, precision_name
from tests.envs.processes import run_script

CPU = torch.device("cpu")


def test_a_device_can_be_chosen_by_name():
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("available", [False, True])
def test_auto_is_the_gpu_if_there_is_one(monkeypatch, available):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert choose_device("auto").type == ("cuda" if available else "cpu")


def test_the_error_for_a_missing_gpu_is_one_line_with_a_remedy(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AgentError, match="finds no GPU here; use --device cpu") as error:
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
def test_auto_is_bfloat16_if_the_processor_has_instructions_for_it(monkeypatch, abilities, fast):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities)
    assert choose_precision("auto", CPU) == (torch.bfloat16 if fast else torch.float32)
    # Names are obeyed on every processor.
    assert choose_precision("float32", CPU) == torch.float32
    assert choose_precision("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize("fast", [False, True])
def test_auto_is_bfloat16_if_the_gpu_has_instructions_for_it(monkeypatch, fast):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: fast)
    gpu = torch.device("cuda")
    assert choose_precision("auto", gpu) == (torch.bfloat16 if fast else torch.float32)
    assert choose_precision("float32", gpu) == torch.float32


def test_a_precision_is_chosen_by_the_name_it_has():
    for precision in (torch.float32, torch.bfloat16):
        assert choose_precision(precision_name(precision), CPU) == precision


KEEP_MEMORY = """
import torch
from agents.device import keep_memory
keep_memory()
for _ in range(3):
    numbers = torch.arange(4_000_000, dtype=torch.float64)
    assert float(numbers.sum()) == 4_000_000 * 3_999_999 / 2
    keep_memory()
print("done")
"""


@pytest.mark.slow
def test_keep_memory_may_be_called_more_than_once(tmp_path):
    # In a separate process, because it cannot be undone.
    assert run_script(KEEP_MEMORY, tmp_path) == "done\n"
