"""Pages in a browser: nothing is cut off at 390 and at 1280 pixels, nothing is loaded, nothing complains, dark is dark."""

from __future__ import annotations

import pytest
from browser import Browser, browser_path
from run_documents import weights_document
from sample_pages import PAGES

from gramian.adapters.pages.runs import page_of_run

pytestmark = pytest.mark.skipif(browser_path() is None, reason="there is no Chromium on this machine")

# What stands beside the window, but for what scrolls in a box of its own that says so; and text wider than its own element.
CUT_OFF = """
[...document.querySelectorAll('body *')].filter(each => {
  const box = each.getBoundingClientRect();
  if (!box.width || each.closest('.scroll > *') || each.closest('defs')) return false;
  if (each.checkVisibility && !each.checkVisibility()) return false;
  const spills = box.right > innerWidth + 0.5 || box.left < -0.5;
  const inline = getComputedStyle(each).display == 'inline' || each.closest('svg, .scroll');
  const narrow = !inline && each.scrollWidth > each.clientWidth + 1;
  return spills || narrow;
}).map(each => each.tagName + '.' + (each.className.baseVal ?? each.className) + ': ' + each.textContent.slice(0, 40))
"""
OUTSIDE = """
[...document.querySelectorAll('svg')].flatMap(drawing => {
  const frame = drawing.getBoundingClientRect();
  return [...drawing.querySelectorAll('text, use, circle, rect')].filter(each => {
    const box = each.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
  }).map(each => each.textContent || each.tagName);
})
"""
EMPTY = """
[...document.querySelectorAll('figure, svg, table')].filter(each => !each.closest('details:not([open]), defs'))
  .map(each => each.getBoundingClientRect()).filter(box => box.width < 5 || box.height < 5).length
"""


@pytest.fixture(name="browser", scope="module")
def browser_fixture(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_off_and_nothing_complains(name, browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(PAGES[name](), encoding="utf-8")
    browser.errors.clear()
    browser.requests.clear()
    for width in (390, 1280):
        for dark in (False, True):
            browser.show(file, width, dark=dark)
            browser.value("document.querySelectorAll('details').forEach(each => { each.open = true })")
            assert browser.value("innerWidth") == width
            assert browser.value("document.scrollingElement.scrollWidth") <= width
            assert browser.value(CUT_OFF) == []
            assert browser.value(OUTSIDE) == []
            assert browser.value(EMPTY) == 0
            assert browser.value("document.querySelectorAll('figure, table').length") >= 2
            back = browser.value("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, back[4:-1].split(","))) < 200) == dark
    assert browser.errors == [] and {url[:7] for url in browser.requests} == {"file://"}


def test_in_print_the_page_is_light_and_whole(browser, tmp_path):
    file = tmp_path / "report.html"
    file.write_text(page_of_run(weights_document(blocks=4)), encoding="utf-8")
    browser.show(file, 800, dark=True, printed=True)
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(251, 250, 248)"
    assert browser.value(CUT_OFF) == []
