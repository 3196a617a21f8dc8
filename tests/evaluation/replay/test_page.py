"""Tests of `evaluation.replay.page`: of its HTML. `test_page_in_chromium` tests its behaviour."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from evaluation.replay.page import Event, page, template_of
from tests.evaluation.replay.tracks import FPS, HOSTILE, PICTURES, render, track


class Scripts(HTMLParser):
    """Collects the elements of a page and the text in some of them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self._open = [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = (
            dict(attrs).get("id", tag) if tag in ("script", "style", "title", "h1") else None
        )

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open:
            self.texts[self._open] = self.texts.get(self._open, "") + data


def data_of(text):
    return json.loads(Scripts(text).texts["data"])


def test_the_page_contains_the_numbers():
    ours = track(9, b"the video")
    text = render(ours)
    data = data_of(text)
    assert (data["fps"], data["picturesPerStep"]) == (FPS, PICTURES)
    (theirs,) = data["tracks"]
    for name in ("rewards", "values", "surprises"):
        np.testing.assert_allclose(theirs[name], getattr(ours, name), rtol=1e-5)
    np.testing.assert_allclose(np.transpose(theirs["probabilities"]), ours.probabilities, atol=1e-4)
    assert [theirs["words"][i] for i in theirs["actions"]] == list(ours.actions)
    assert [ours.choices[c] for (c,) in theirs["taken"]] == list(ours.actions)
    assert dict(theirs["variables"])["HEALTH"] == list(ours.variables["HEALTH"])
    assert base64.b64decode(Scripts(text).texts["video-0"]) == b"the video"


def test_only_the_scripts_and_styles_of_the_page_are_allowed():
    text = render(track(2))
    (policy,) = [a["content"] for t, a in Scripts(text).tags if a.get("http-equiv")]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    assert rules["media-src"] == "blob:"
    for name in ("script", "style"):
        (source,) = re.findall(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"
    # Nothing is loaded from elsewhere.
    assert not re.search(r"(src|href)=\"(?!data:,\")", text)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_add_no_element(name):
    plain = Scripts(render(track(3))).tags
    hostile = track(
        3,
        name=name,
        about=name,
        choices=(name, "b", "c"),
        actions=(name,) * 3,
        variables={name: np.arange(3.0)},
        events=(Event(step=0, kind=name, text=name),),
    )
    text = render(hostile, title=name)
    assert [tag for tag, _ in Scripts(text).tags] == [tag for tag, _ in plain]
    assert Scripts(text).texts["title"] == Scripts(text).texts["h1"] == name
    assert data_of(text)["tracks"][0]["name"] == name


def test_names_that_are_not_unicode_can_be_written():
    name = b"runs/\xff".decode("utf-8", "surrogateescape")
    render(track(2, name=name), title=name).encode("utf-8")


def test_nan_and_infinity_are_gaps():
    values = np.array([1.0, np.nan, -np.inf], np.float32)
    assert data_of(render(track(3, values=values)))["tracks"][0]["values"] == [1.0, None, None]


def test_only_the_most_probable_of_many_choices_are_shown():
    probabilities = np.full((2, 40), 0.01, np.float32)
    probabilities[:, 30:] = 0.05
    names = [f"choice {i}" for i in range(40)]
    ours = track(2, choices=names, probabilities=probabilities, actions=(names[31], names[20]))
    (theirs,) = data_of(render(ours))["tracks"]
    assert theirs["numChoices"] == 40
    assert theirs["choices"] == names[:6] + names[30:]
    assert theirs["taken"] == [[7], []]


def test_an_action_may_consist_of_several_choices():
    choices = ("-", "turn left", "-", "attack")
    actions = ("turn left + attack", "attack", "-")
    (theirs,) = data_of(render(track(3, choices=choices, actions=actions)))["tracks"]
    assert theirs["taken"] == [[1, 3], [3], [0]]


def test_tracks_and_rates_are_checked():
    for count in (0, 3):
        with pytest.raises(ValueError, match="one or two episodes"):
            render(*[track(2)] * count)
    with pytest.raises(ValueError, match="fps must be greater than 0"):
        page("", [track(2)], fps=0.0, pictures_per_step=1)
    with pytest.raises(ValueError, match="at least one env step"):
        track(2, rewards=np.zeros(0))
    with pytest.raises(ValueError, match="has 20 rewards, but 3 values"):
        track(values=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="1 names of choices"):
        track(choices=("a",), probabilities=np.ones((20, 2), np.float32))


def test_a_map_from_above_is_a_picture_on_the_page():
    (plain,) = data_of(render(track(2)))["tracks"]
    assert plain["map"] == ""
    (own,) = data_of(render(track(2, map=b"a picture")))["tracks"]
    assert base64.b64decode(own["map"].removeprefix("data:image/png;base64,")) == b"a picture"


def test_no_style_is_overruled_by_another_of_the_same_name():
    """Two things once shared a class, and the map from above covered the video."""
    styles = re.findall(r"^(\.[\w-]+) \{", template_of("page.html"), re.MULTILINE)
    assert len(styles) > 20
    assert len(set(styles)) == len(styles)
