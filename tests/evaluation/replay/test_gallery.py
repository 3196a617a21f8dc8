"""Tests of `evaluation.replay.gallery`."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from evaluation.replay.gallery import Exhibit, gallery
from tests.evaluation.replay.test_page import Scripts
from tests.evaluation.replay.tracks import HOSTILE, render, track


def exhibit(name="zoo/basic", **changes):
    fields = {"caption": "basic", "about": "9 env steps", "total": "80", "page": render(track(3))}
    return Exhibit(name=name, **(fields | changes))


def policies_of(page):
    return [attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes]


def test_the_page_contains_the_page_of_each_replay():
    ours = [exhibit(), exhibit("other", page=render(track(2, b"the video")))]
    found = json.loads(Scripts(gallery("A zoo", ours)).texts["data"])
    assert [each["page"] for each in found] == [each.page for each in ours]
    (video,) = re.findall(r'id="video-0">([^<]*)', found[1]["page"])
    assert base64.b64decode(video) == b"the video"


def test_only_the_scripts_of_the_two_templates_are_allowed():
    text = gallery("A zoo", [exhibit()])
    found = Scripts(text)
    (policy,) = policies_of(found)  # The pages inside are text until they are opened.
    for element in ("script", "style"):
        source = found.texts[element]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    (inside,) = policies_of(Scripts(render(track(3))))
    for rule in ("script-src", "style-src"):
        (allowed,) = re.findall(rf"{rule} ([^;]*);", inside)
        assert allowed in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(name):
    found = Scripts(gallery(name, [exhibit(name)]))
    assert json.loads(found.texts["data"])[0]["name"] == name
    assert [tag for tag, _ in found.tags].count("script") == 2


def test_a_gallery_is_not_empty():
    with pytest.raises(ValueError, match="at least one"):
        gallery("Nothing", [])
