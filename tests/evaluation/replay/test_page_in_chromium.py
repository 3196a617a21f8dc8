"""Tests of `evaluation.replay.page`: of its behaviour in Chromium, where it is installed."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace

import cv2
import numpy as np
import pytest

from envs.video import write_mp4
from evaluation.replay.gallery import Exhibit, gallery
from evaluation.replay.page import Event
from tests.evaluation.replay.tracks import (
    BITS,
    BLOCK,
    FPS,
    HOSTILE,
    PICTURES,
    numbered,
    render,
    track,
)

FLAGS = (
    "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync no-proxy-server hide-scrollbars window-size=1300,1000"
)

# Reads the pixels of a video. For a video from another origin, this would raise.
PICTURE = """
const video = document.querySelectorAll("video")[arguments[0]];
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
const pen = canvas.getContext("2d");
pen.drawImage(video, 0, 0);
const { data } = pen.getImageData(0, canvas.height / 2, canvas.width, 1);
let number = 0;
for (let i = 0; i < arguments[2]; i++) {
  if (data[4 * arguments[1] * (i + 0.5)] > 127) number += 2 ** i;
}
return number;
"""


class Browser:
    """A page opened from disk."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder

    def open(self, *tracks, title="An episode"):
        self.path = self.folder / "page.html"
        self.path.write_text(render(*tracks, title=title), encoding="utf-8")
        self.driver.get_log("performance")
        self.driver.get(self.path.as_uri())
        self.seek(0)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def seek(self, step):
        script = "replay.seek(arguments[0]).then(arguments[1])"
        return self.driver.execute_async_script(script, step)

    def settle(self):
        """Wait until the seek that a key or a click started has ended."""
        return self.seek(self.step())

    def step(self):
        return self.run("return replay.step()")

    def picture(self, video=0):
        return self.run(PICTURE, video, BLOCK, BITS)

    def press(self, key, *, shift=False):
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        chain = ActionChains(self.driver)
        if shift:
            chain = chain.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT)
        else:
            chain = chain.send_keys(key)
        chain.perform()

    def find(self, selector):
        return self.driver.find_elements("css selector", selector)

    def text(self, selector):
        return [element.text for element in self.find(selector)]

    def wait(self, condition, seconds=8):
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, seconds, poll_frequency=0.02).until(lambda _: condition())

    def hover(self, step, selector=".plot"):
        """Move the pointer to an env step of a curve, and return the rows of the tooltip."""
        from selenium.webdriver.common.action_chains import ActionChains

        (plot, *_) = self.find(selector)
        slots = self.run("return replay.numSteps") + 1
        across = round(plot.rect["width"] * ((step + 0.5) / slots - 0.5))
        chain = ActionChains(self.driver, duration=0).scroll_to_element(plot)
        chain.move_to_element_with_offset(plot, across, 0).perform()
        return [row.split(" ", 1) for row in self.text("#tip tr")]

    def problems(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Return the URLs that were requested since the page was opened."""
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        # Pages of the browser itself also send requests.
        ours = [params for params in sent if params["documentURL"] == self.path.as_uri()]
        return [params["request"]["url"] for params in ours]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Return a function that makes the video of a number of pictures, once."""
    made = {}

    def video(count):
        if count not in made:
            path = tmp_path_factory.mktemp("video") / "numbered.mp4"
            write_mp4(path, numbered(count), FPS)
            made[count] = path.read_bytes()
        return made[count]

    return video


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("Chromium or its driver (chromedriver) is not installed")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS.split(), f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver))
    driver.set_script_timeout(10)
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, tmp_path):
    chromium.get_log("browser")
    page = Browser(chromium, tmp_path)
    yield page
    assert page.problems() == []


def signed(number):
    return str(number).replace("-", "\u2212").removesuffix(".0")


def test_it_opens_from_disk_without_network_requests(browser, videos):
    browser.open(track(video=videos(81)))
    assert browser.driver.title == "An episode"
    assert browser.text("h1") == ["An episode"]
    duration = browser.run("return document.querySelector('video').duration")
    assert duration == pytest.approx(81 / FPS)
    assert browser.run("return replay.numSteps") == 20
    urls = browser.requests()
    assert browser.path.as_uri() in urls
    assert {url.partition(":")[0] for url in urls} <= {"file", "blob", "data"}


@pytest.fixture
def listener():
    """Listen on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def test_an_injected_script_does_not_run_and_injected_requests_are_blocked(
    browser, videos, listener
):
    browser.open(track(2, video=videos(9)))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    violations = browser.driver.execute_async_script(
        """
        const [url, done] = arguments, found = [];
        document.addEventListener("securitypolicyviolation", (e) => {
          found.push(e.effectiveDirective);
          if (found.length === 3) done(found.sort());
        });
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        document.body.append(script);
        const image = new Image();
        image.src = url;
        fetch(url).catch(() => {});
        """,
        url,
    )
    assert violations == ["connect-src", "img-src", "script-src-elem"]
    assert not browser.run("return window.ran")
    with pytest.raises(BlockingIOError):
        listener.accept()
    assert len(browser.problems()) >= 3


def test_seeking_shows_the_exact_picture(browser, videos):
    browser.open(track(80, video=videos(321)))
    for step in (0, 1, 79, 80, 40, 39, 3, 65, 64):
        assert browser.seek(step) == step
        assert browser.picture() == PICTURES * step
        assert browser.step() == step
    # Steps beyond the ends are clamped.
    assert (browser.seek(-5), browser.seek(1000)) == (0, 80)


def test_the_last_of_many_seeks_is_the_one_that_counts(browser, videos):
    browser.open(track(80, video=videos(321)))
    browser.run("for (let n = 0; n <= 33; n++) replay.seek((n * 41) % 81)")
    assert browser.seek(57) == 57
    assert browser.picture() == 57 * PICTURES


def test_keys_seek_by_steps_and_events(browser, videos):
    from selenium.webdriver.common.keys import Keys

    events = (
        Event(step=11, kind="surprise", text="surprise 0.9"),
        Event(step=4, kind="kill", text="kill"),
    )
    browser.open(track(video=videos(81), events=events))
    for key, shift, step in (
        (Keys.ARROW_RIGHT, False, 1),
        (Keys.ARROW_RIGHT, True, 11),
        (Keys.ARROW_LEFT, False, 10),
        (Keys.ARROW_LEFT, True, 0),
        (Keys.ARROW_LEFT, False, 0),
        ("n", False, 5),
        ("n", False, 12),
        ("n", False, 12),
        ("p", False, 5),
        ("p", False, 5),
        (Keys.END, False, 20),
        (Keys.HOME, False, 0),
    ):
        browser.press(key, shift=shift)
        assert browser.settle() == step
        assert browser.picture() == PICTURES * step
    assert browser.text(".chip") == ["kill\nstep 5", "surprise 0.9\nstep 12"]
    browser.find(".chip")[1].click()
    assert browser.settle() == 12
    assert [chip.get_attribute("aria-current") for chip in browser.find(".chip")] == [
        "false",
        "true",
    ]


def test_question_mark_shows_the_keys(browser, videos):
    from selenium.webdriver.common.keys import Keys

    browser.open(track(2, video=videos(9)))
    browser.press("?")
    assert browser.find("#keys")[0].is_displayed()
    browser.press(Keys.END)
    assert browser.step() == 0
    browser.press("?")
    assert not browser.find("#keys")[0].is_displayed()


def test_playing_advances_and_stops_at_the_end(browser, videos):
    browser.open(track(video=videos(81)))
    (play,) = browser.find("#play")
    assert play.get_attribute("aria-label") == "Play"
    browser.press(" ")
    browser.wait(lambda: browser.step() >= 3)
    assert play.get_attribute("aria-label") == "Pause"
    browser.press(" ")
    held = browser.settle()
    assert 3 <= held < 20
    assert browser.picture() == PICTURES * held
    browser.find("#speeds button")[4].click()
    play.click()
    browser.wait(lambda: browser.step() == 20)
    browser.wait(lambda: play.get_attribute("aria-label") == "Play")
    browser.settle()
    assert browser.picture() == 80
    # At the end, playing starts from the beginning.
    browser.press(" ")
    browser.wait(lambda: 1 <= browser.step() <= 15)
    browser.wait(lambda: browser.step() == 20)


@pytest.mark.parametrize("speed", [0, 4])
def test_speed_buttons_set_the_speed(browser, videos, speed):
    browser.open(track(80, video=videos(321)))
    browser.find("#speeds button")[speed].click()
    seconds, played = browser.driver.execute_async_script("""
        const done = arguments[0], video = document.querySelector("video");
        replay.play();
        setTimeout(() => {
          const time = performance.now(), from = video.currentTime;
          const since = () => [(performance.now() - time) / 1000, video.currentTime - from];
          setTimeout(() => done(since()), 600);
        }, 300);
    """)
    assert played / seconds == pytest.approx((0.25, 0.5, 1, 2, 4)[speed], rel=0.25)
    browser.run("replay.pause()")


def test_the_panel_shows_the_env_step(browser, videos):
    ours = track(video=videos(81))
    browser.open(ours)
    for step in (1, 9, 20):
        browser.seek(step)
        t = step - 1
        assert browser.text(".return dd") == [signed(ours.rewards[:step].sum())]
        assert browser.text(".reward dd")[0].lstrip("+") == signed(ours.rewards[t])
        assert float(signed(browser.text(".value dd")[0]).replace("\u2212", "-")) == pytest.approx(
            float(ours.values[t]), abs=0.01
        )
        words = "nothing" if ours.actions[t] == "-" else ours.actions[t]
        assert browser.text(".did") == [words]
        shares = [f"{round(100 * p)} %" for p in ours.probabilities[t].tolist()]
        assert browser.text(".bar span:nth-child(2)") == shares
        taken = browser.text(".bar.taken span:first-child")
        assert taken == [words]
        (slider,) = browser.find("#slider")
        assert slider.get_attribute("aria-valuenow") == str(step)
        assert slider.get_attribute("aria-valuemax") == "20"
    # Only variables that change have a curve; the others are listed.
    assert browser.text(".thin .key") == ["health\n81"]
    assert browser.text("#still") == ["armor 7"]


def test_hovering_shows_the_numbers_of_an_env_step_and_a_click_seeks_to_it(browser, videos):
    ours = track(video=videos(81))
    browser.open(ours)
    browser.seek(2)
    for step, selector in ((13, ".plot"), (7, ".heat .plot")):
        shown = dict(browser.hover(step, selector)[1:])
        assert shown["return"] == signed(ours.rewards[:step].sum())
        assert shown["reward"].lstrip("+") == signed(ours.rewards[step - 1])
        assert float(shown["surprise"]) == pytest.approx(float(ours.surprises[step - 1]), abs=0.01)
        assert shown["action"] == ours.actions[step - 1].replace("-", "nothing")
    assert browser.text("#tip p") == ["kill"]
    assert browser.step() == 2
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser.driver).click().perform()
    assert browser.settle() == 7
    assert browser.picture() == 28


def test_dragging_the_slider_scrubs(browser, videos):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.open(track(video=videos(81)))
    (slider,) = browser.find("#slider")
    step = slider.rect["width"] / 21
    chain = ActionChains(browser.driver, duration=20)
    chain.move_to_element_with_offset(slider, round(-8 * step), 0).click_and_hold()
    chain.move_to_element_with_offset(slider, round(5 * step), 0).release()
    # After the release, moving the pointer does nothing.
    chain.move_to_element_with_offset(slider, round(-5 * step), 0).perform()
    assert browser.settle() == 15
    assert browser.picture() == 60


def test_a_map_from_above_stands_beside_the_video(browser, videos):
    picture = cv2.imencode(".png", np.zeros((300, 400, 3), np.uint8))[1].tobytes()
    browser.open(track(4, video=videos(17), map=picture))
    box = "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()"
    map_, video = (browser.run(box, each) for each in (".from-above", "video"))
    assert 0 < map_["width"] <= 400
    assert map_["left"] >= video["right"] or map_["top"] >= video["bottom"]


def test_two_tracks_are_synchronous_and_the_shorter_one_waits_at_its_end(browser, videos):
    first, second = track(60, video=videos(241)), track(20, video=videos(81))
    browser.open(second, first)
    assert browser.run("return replay.numSteps") == 60
    for step in (7, 19, 20, 21, 60, 3):
        browser.seek(step)
        assert browser.picture(1) == PICTURES * step
        assert browser.picture(0) == PICTURES * min(step, 20)
    assert browser.text(".return dd") == [
        signed(second.rewards[:3].sum()),
        signed(first.rewards[:3].sum()),
    ]
    browser.seek(0)
    both = "return [...document.querySelectorAll('video')].map((v) => v.currentTime)"
    browser.run("replay.play()")
    browser.wait(lambda: browser.step() >= 8)
    apart = []
    while browser.step() < 16:
        left, right = browser.run(both)
        apart.append(abs(left - right))
    assert np.median(apart) < 2 / FPS
    browser.find("#speeds button")[4].click()
    browser.wait(lambda: browser.step() == 60)
    browser.settle()
    assert (browser.picture(0), browser.picture(1)) == (80, 240)
    assert browser.text(".did")[0] == "ended"


@pytest.mark.parametrize("count", [1, 2])
def test_hostile_names_stay_text(browser, videos, count):
    names = HOSTILE[:5]
    hostile = track(
        5,
        video=videos(21),
        name=" ".join(names),
        about=names[1],
        choices=names,
        actions=names,
        variables={name: np.arange(5.0) for name in (*names, "__proto__", "constructor")},
        events=tuple(Event(step=i, kind=name, text=name) for i, name in enumerate(names)),
    )
    other = track(5, video=videos(21), variables={})
    browser.open(*[hostile, other][:count], title=names[0])
    assert browser.driver.title == browser.text("h1")[0] == names[0]
    for step in range(1, 6):
        browser.seek(step)
        assert browser.text(".did")[0] == names[step - 1]
        browser.hover(step)
        assert browser.text("#tip p")[0] == names[step - 1]
    assert browser.find("img, b b, script:not([id]):not(:last-of-type)") == []
    labels = browser.text(".thin .label")
    assert labels == [n.lower().replace("_", " ").strip() for n in hostile.variables]
    assert browser.text(".name")[0] == hostile.name


def test_a_video_that_ends_within_an_env_step(browser, videos):
    browser.open(track(video=videos(78)))
    browser.seek(20)
    assert browser.picture() == 77
    browser.seek(18)
    browser.run("replay.play()")
    browser.wait(lambda: browser.step() == 20)
    browser.settle()
    assert browser.picture() == 77


def test_one_env_step_without_choices_values_variables_and_events(browser, videos):
    bare = track(1, video=videos(5), choices=(), variables={}, events=())
    browser.open(replace(bare, values=np.zeros(1, np.float32)))
    assert browser.seek(5) == 1
    assert browser.picture() == 4
    assert browser.text(".did") == ["[0.5]"]
    assert browser.text(".curves .label") == ["return", "reward"]
    assert browser.find(".bar") == browser.find(".chip") == []
    browser.press("n")
    assert browser.settle() == 1
    browser.press(" ")
    browser.wait(lambda: browser.run("return document.querySelector('video').paused"))
    browser.wait(lambda: browser.step() == 1)


@pytest.mark.parametrize("width", [380, 700, 1300])
def test_the_page_fits_the_width_of_the_screen(browser, videos, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        long = track(5, video=videos(21), name="runs/" + "a_long_name" * 20)
        browser.open(track(5, video=videos(21)), long, title="A_long_title" * 20)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        assert browser.run("return document.activeElement === document.body")
    finally:
        browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_all_controls_have_accessible_names(browser, videos):
    browser.open(track(video=videos(81)))
    reachable = browser.find("button, select, input, [tabindex]")
    assert all(element.accessible_name for element in reachable if element.is_displayed())
    assert browser.find("#slider")[0].aria_role == "slider"
    assert all(canvas.accessible_name for canvas in browser.find("canvas[role=img]"))


def test_a_gallery_plays_its_videos_and_opens_the_page_of_each_replay(browser, videos):
    names = ("zoo/basic", "<b>other</b>")
    pages = [render(track(20, video=videos(81), name=name)) for name in names]
    exhibits = [
        Exhibit(name=name, caption="basic", about="20 env steps", total="80", page=page)
        for name, page in zip(names, pages, strict=True)
    ]
    path = browser.folder / "gallery.html"
    path.write_text(gallery("A zoo", exhibits))
    browser.driver.get(path.as_uri())
    assert browser.text("h2") == list(names)
    for video in browser.find("video"):
        assert browser.driver.execute_async_script(
            "const [video, done] = arguments; const wait = () => video.duration ? "
            "done(video.duration) : setTimeout(wait, 20); wait()",
            video,
        ) == pytest.approx(81 / FPS)
    browser.find("figure button")[1].click()
    (frame,) = browser.find("iframe")
    browser.driver.switch_to.frame(frame)
    assert browser.driver.execute_async_script("replay.seek(7).then(arguments[0])") == 7
    assert browser.text(".name") == [names[1]]
    browser.driver.switch_to.default_content()
    (close,) = browser.find("#close")
    close.click()
    browser.wait(lambda: not browser.find("iframe"))
