"""The page in a browser: it is clicked at, printed, and asks the network for nothing."""

import re

import numpy as np
import pytest
from browser import PROGRAM, Browser
from scipy import special

from ensemble_keras.evaluation.report import EvaluationReport

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium on this machine"),
]
NAMES = ["cat", "dog", "<b>bird"]


@pytest.fixture(scope="module")
def report():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)

    def member(strength):
        logits = rng.normal(size=(300, 3))
        logits[np.arange(300), y] += strength
        return special.softmax(logits, axis=1)

    members = {f"member {k}": member(0.5 + 0.5 * k) for k in range(3)}
    images = rng.integers(0, 256, (300, 32, 32, 3), dtype="uint8")
    p = sum(members.values()) / 3
    return EvaluationReport.from_predictions(y, p, class_names=NAMES, members=members, images=images)


@pytest.fixture(scope="module")
def path(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    report.to_html(path)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(autouse=True)
def no_fault(browser, path):
    browser.requests.clear()
    browser.errors.clear()
    browser.open(path)
    yield
    assert browser.errors == []
    assert {address for address in browser.requests if not address.startswith("data:")} == {path.as_uri()}


def test_a_cell_shows_its_images(browser, report):
    browser.run("document.querySelector(\"button.cell[data-cell='2-0']\").click()")
    rows = np.flatnonzero((report.y_true == 2) & (report.probabilities.argmax(axis=1) == 0))
    shown = browser.run('document.querySelectorAll("#shown-images img").length')
    assert shown == min(12, len(rows))
    heading = browser.run('document.querySelector("#shown-images h3").textContent')
    assert heading.startswith(f"<b>bird, said to be cat: {len(rows)} images")
    loaded = "[...document.querySelectorAll('#shown-images img')].every(i => i.complete && i.naturalWidth === 96)"
    browser.run("Promise.all([...document.querySelectorAll('#shown-images img')].map(i => i.decode()))")
    assert browser.run(loaded)
    pressed = "[...document.querySelectorAll('[aria-pressed=true]')].every(b => b.dataset.cell === '2-0')"
    assert browser.run(pressed)


def test_the_leaderboard_is_sorted_by_clicks(browser, report):
    column = "[...document.querySelectorAll('#members table.sortable tbody tr')].map(r => r.cells[1].textContent)"
    click = "document.querySelectorAll('#members table.sortable thead button')[1].click()"
    as_made = [f"{100 * accuracy:.1f}" for accuracy in report.members["accuracy"]]
    assert browser.run(column) == as_made
    for descending in (True, False, True):
        browser.run(click)
        assert browser.run(column) == sorted(as_made, key=float, reverse=descending)
    names = "document.querySelectorAll('#members table.sortable thead button')[0].click()"
    browser.run(names)
    first = "document.querySelector('#members table.sortable tbody tr').cells[0].textContent"
    assert browser.run(first) == "ensemble"
    # What has no value, as the ensemble's gain over itself, comes last either way.
    gain = "document.querySelectorAll('#members table.sortable thead button')[5].click()"
    last = "[...document.querySelectorAll('#members table.sortable tbody tr')].at(-1).cells[0].textContent"
    for _ in range(2):
        browser.run(gain)
        assert browser.run(last) == "ensemble"


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme_is_the_systems_until_it_is_switched(browser, path, dark):
    browser.open(path, dark=dark)
    brightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0] < 128"
    assert browser.run(brightness) == dark
    for switched in (not dark, dark):
        browser.run("document.getElementById('theme').click()")
        assert browser.run(brightness) == switched


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_no_wider_than_the_screen(browser, path, width):
    browser.open(path, width)
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_it_is_printed_light_and_whole(browser, path, tmp_path):
    browser.open(path, dark=True)
    browser.pdf(tmp_path / "report.pdf")
    printed = (tmp_path / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b", printed)) <= 20
    browser.call("Emulation.setEmulatedMedia", media="print")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert browser.run(ground) == "rgb(255, 255, 255)"
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"


def test_every_image_and_table_has_what_a_screen_reader_says(browser):
    assert browser.run("[...document.images].every(image => image.alt)")
    assert browser.run("[...document.querySelectorAll('th')].every(head => head.scope)")
    assert browser.run("[...document.querySelectorAll('[role=img], [role=region]')].every(e => e.ariaLabel)")
