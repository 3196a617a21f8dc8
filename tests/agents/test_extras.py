"""Tests of `agents.extras`."""

from __future__ import annotations

import math
import sys

import pytest

from agents.extras import MissingExtraError, import_extra


def test_an_installed_module_is_imported():
    assert import_extra("math", "tune") is math


@pytest.mark.parametrize("module", ["not_installed", "not_installed.part"])
def test_the_error_for_a_missing_package_names_the_command_that_installs_it(module):
    message = r'^not_installed is not installed; pip install -e "\.\[tune\]"$'
    with pytest.raises(MissingExtraError, match=message):
        import_extra(module, "tune")


def test_a_missing_requirement_of_an_installed_package_is_another_error(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import its_requirement")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_requirement") as error:
        import_extra("half_installed", "tune")
    assert not isinstance(error.value, MissingExtraError)
    assert "half_installed" not in sys.modules
