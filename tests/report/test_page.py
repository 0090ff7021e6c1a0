"""Pages as a real browser shows them."""

import json
import re
import shutil
from contextlib import contextmanager

import pytest

from fedit.report import page as pages
from fedit.reported import report
from tests.report import made

# The least contrast (WCAG) of any visible text with what lies behind it, and the text that has it.
CONTRAST = """() => {
  const parse = (text) => {
    const n = text.match(/[\\d.]+/g).map(Number);
    if (text.startsWith("color(srgb")) return [...n.slice(0, 3).map(v => v * 255), n[3] ?? 1];
    return [n[0], n[1], n[2], n[3] ?? 1];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  const behind = (node) => {
    if (!node) return [255, 255, 255];
    const own = parse(getComputedStyle(node).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(node.parentElement));
  };
  const light = (c) => c.map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let worst = [99, ""];
  for (const node of document.querySelectorAll("body *")) {
    const text = [...node.childNodes].filter(n => n.nodeType === 3 && n.data.trim());
    if (!text.length || !node.checkVisibility() || node.closest("svg, script")) continue;
    const style = getComputedStyle(node), under = behind(node), ink = parse(style.color);
    ink[3] *= Number(style.opacity);
    const [a, b] = [light(over(ink, under)), light(under)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, text[0].data.trim().slice(0, 40)];
  }
  return worst;
}"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@contextmanager
def opened(browser, path, **settings):
    """The page, watched: whatever it asks of the network or complains of fails the test."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
    page = context.new_page()
    seen: list[str] = []
    page.on("console", lambda message: seen.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on("dialog", lambda dialog: seen.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: seen.append(f"request: {request.url}"))
    page.goto(path.as_uri())
    yield page
    context.close()
    others = [line for line in seen if line not in (f"request: {path.as_uri()}", "request: data:,")]
    assert not others


@pytest.fixture(scope="module")
def written(study):
    return report([study])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Hostile text wherever a data owner or a model could put it."""
    folder = tmp_path_factory.mktemp("hostile") / "study"
    made.study(folder, seeds=1, items=16, text=made.HOSTILE + "A" * 10_000)
    path = folder / "seed-0" / "fedit" / "environment.json"
    known = json.loads(path.read_text())
    known["clients"] = {f"_{number} {made.HOSTILE}": number for number in range(1, 4)}
    known["data"] = {made.HOSTILE: made.HOSTILE}  # so the partition cannot be drawn anew
    path.write_text(json.dumps(known))
    for found in folder.rglob("scores.json"):
        text = found.read_text().replace('"category": "open_qa"', '"category": "<b>x</b>\\u001b"')
        found.write_text(text)
    return report([folder])


@pytest.mark.parametrize("which", ["written", "hostile"])
@pytest.mark.parametrize("width", [400, 1280])
def test_a_page_loads_nothing_draws_all_and_stays_in_its_width(browser, request, which, width):
    path = request.getfixturevalue(which)
    with opened(browser, path, viewport={"width": width, "height": 900}) as page:
        boxes = page.eval_on_selector_all(
            "svg[role=img]",
            "all => all.map(s => [s.getBBox().width, s.getBoundingClientRect().height])",
        )
        assert len(boxes) == 4
        assert all(side > 50 for box in boxes for side in box)
        page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
        assert page.evaluate(OVERFLOW) == 0
        assert page.locator("h2").all_inner_texts() == [
            "Who answers best",
            "How training went",
            "Who holds what",
            "What each owner gains",
            "Answers side by side",
            "What it took",
            "How it was done",
        ]


def test_what_is_hostile_is_shown_as_text(browser, hostile):
    with opened(browser, hostile) as page:
        assert page.evaluate("window.__pwned") is None
        assert page.locator("iframe, img, main a, section svg svg").count() == 0
        answer = page.locator(".said dd").nth(1).inner_text()
        assert "<script>window.__pwned = 1</script><img src=x" in answer
        assert "⟨U+001B⟩[31mred⟨U+001B⟩[0m⟨U+0007⟩ ⟨U+202E⟩gnol⟨U+202C⟩" in answer
        assert "{{ 7 * 7 }} {% raw %} ⟨U+D800⟩ ⟨U+0000⟩ & \" ' ` $x^{" in answer
        assert re.search(r"A{500}A* … \(\d{1,2},\d{3} more characters\)$", answer)
        assert page.locator("svg text", has_text="_1 <script>").count() == 1
        assert "<b>x</b>⟨U+001B⟩" in page.locator(".card .over span:first-child").all_inner_texts()
    bytes_ = hostile.read_bytes()
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", bytes_)
    assert "\u202e" not in bytes_.decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_what_lies_behind_it(browser, written, scheme):
    with opened(browser, written, color_scheme=scheme) as page:
        page.eval_on_selector_all("details", "all => all.forEach(d => d.open = true)")
        ratio, text = page.evaluate(CONTRAST)
        assert ratio >= 4.5, text
        inks = page.eval_on_selector_all(
            "svg text", "all => [...new Set(all.map(t => getComputedStyle(t).fill))]"
        )
        dark = [sum(map(int, re.findall(r"\d+", ink))) < 384 for ink in inks]
        assert dark == [scheme == "light"] * len(inks)


def test_answers_are_filtered_by_category(browser, written):
    with opened(browser, written) as page:
        cards = page.locator(".card:visible")
        assert cards.count() == 16
        page.locator("select").select_option("open_qa")
        assert cards.count() == 2
        assert set(page.locator(".card:visible .over span:first-child").all_inner_texts()) == {
            "open_qa"
        }
        assert page.locator(".filter output").inner_text() == "2 shown"
        page.locator("select").select_option("all")
        assert cards.count() == 16


def test_without_scripts_the_page_can_be_read(browser, written):
    with opened(browser, written, java_script_enabled=False) as page:
        assert page.locator(".card:visible").count() == 16
        assert not page.locator(".filter").is_visible()


def test_the_page_prints(browser, written, tmp_path):
    with opened(browser, written) as page:
        pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    sheets = len(re.findall(rb"/Type /Page\b", pdf))
    assert 3 <= sheets <= 15
    assert re.search(rb"/MediaBox \[0 0 59[45]\S* 84[12]", pdf), "A4"


def test_a_changed_script_would_be_refused(browser, written, tmp_path):
    changed = shutil.copy(written, tmp_path / "changed.html")
    changed.write_text(changed.read_text().replace('classList.add("js")', 'classList.add("jx")'))
    context = browser.new_context()
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(changed.as_uri())
    assert page.get_attribute("html", "class") is None
    assert any("Content Security Policy" in text for text in refused)
    context.close()


def test_equal_folders_give_equal_bytes_and_unique_ids(written, study):
    first = written.read_bytes()
    assert report([study]).read_bytes() == first
    ids = re.findall(r'\bid="([^"]*)"', first.decode())
    assert len(ids) == len(set(ids)) > 10
    assert pages.MARK in first.decode()[:2000]
    assert not re.search(r"#0[12]0[12][0-9a-f]{2}", first.decode()), "a stand-in colour was left"
