"""The report as its readers meet it: in a browser, with a mouse, a keyboard, a phone, a printer."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from jobs.__main__ import main
from jobs._report.grid import Grid
from jobs._report.inputs import load_entries
from tests.jobs import evaluations
from tests.support import browser

IDENTITIES = 30
METHODS = {"e4t": 0.6, "lora": 0.4}

pytestmark = pytest.mark.skipif(bool(browser.missing()) and not browser.required(), reason=browser.missing())


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two methods over thirty people."""
    return evaluations.write(tmp_path_factory.mktemp("scored"), evaluations.names(IDENTITIES), METHODS)


def report(scored: list[str], out: Path, *more: str) -> Path:
    given = [word for uri in scored for word in ("--evaluation", uri)]
    assert main(["report", *given, "--out", str(out), *more]) == 0
    return out / "report.html"


@pytest.fixture(scope="module")
def page(scored: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(scored, tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    assert not browser.missing(), f"{browser.REQUIRED} is set, but {browser.missing()}"
    with browser.chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def at(driver: Chrome) -> Iterator[Callable[[Path | str], Chrome]]:
    """Opens a page; whatever is done with it, its console must stay empty."""

    def open_page(path: Path | str) -> Chrome:
        driver.get("about:blank")  # else an address that differs after its # alone would not be loaded again
        driver.get(path if isinstance(path, str) else path.as_uri())
        until(driver, loaded)
        return driver

    browser.media(driver, prefers_reduced_motion="reduce")  # else a click may miss what is still on its way
    driver.get_log("browser")
    yield open_page
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert driver.get_log("browser") == []


def choose(driver: Chrome, name: str, text: str) -> None:
    Select(driver.find_element(By.CSS_SELECTOR, f"#find [name={name}]")).select_by_visible_text(text)


def heads(driver: Chrome) -> list[str]:
    """Identities on show, in order."""
    return driver.execute_script(
        "return [...document.querySelectorAll('#people h3')].map((h) => h.firstChild.textContent.trim())"
    )


def loaded(driver: Chrome) -> bool:
    """The page is there, whole: on a busy machine the driver may still be looking at the blank one before it."""
    return driver.execute_script("return location.protocol === 'file:' && document.readyState === 'complete'")


def until(driver: Chrome, what: Callable[[Chrome], Any]) -> Any:
    return WebDriverWait(driver, 20, poll_frequency=0.05).until(what)


@pytest.fixture(scope="module")
def grid(scored: list[str]) -> Grid:
    return Grid.of(load_entries(scored, []))


def spoken(name: str) -> str:
    return name.replace("_", " ")


def test_it_begins_with_the_best_and_the_worst(at: Callable[[Path], Chrome], page: Path, grid: Grid) -> None:
    driver = at(page)
    ranked = [spoken(name) for name in grid.identities]
    assert heads(driver) == ranked[:6] + ranked[-6:]
    assert driver.find_element(By.ID, "find").is_displayed()
    assert not driver.find_element(By.ID, "pages").is_displayed()


def test_searching_finds_parts_of_names(at: Callable[[Path], Chrome], page: Path, grid: Grid) -> None:
    driver = at(page)
    driver.find_element(By.NAME, "who").send_keys("dijk")
    wanted = [spoken(name) for name in grid.identities if "Dijkstra" in name]
    until(driver, lambda d: heads(d) == wanted)
    assert "12 identities" in driver.find_element(By.ID, "found").text
    driver.find_element(By.NAME, "who").send_keys("xyz")
    until(driver, lambda d: heads(d) == [])
    assert "No identity fits" in driver.find_element(By.ID, "found").text
    driver.find_element(By.CSS_SELECTOR, "#find [type=reset]").click()
    until(driver, lambda d: len(heads(d)) == 12)


def test_sorting_by_the_score_of_one_method_under_one_prompt(
    at: Callable[[Path], Chrome], page: Path, grid: Grid
) -> None:
    driver = at(page)
    for name, text in (("method", "lora"), ("prompt", "sketch"), ("score", "CLIP-T"), ("order", "worst first")):
        choose(driver, name, text)
    column = list(grid.scores).index("clip_t")
    under = grid.values[1][:, 1, column]
    order = sorted(range(IDENTITIES), key=lambda i: under[i])
    assert heads(driver) == [spoken(grid.identities[i]) for i in order[:12]]
    captions = [c.text for c in driver.find_elements(By.CSS_SELECTOR, "#people article:first-of-type figcaption")]
    assert captions == ["input", f"lora {under[order[0]]:.2f}"]
    choose(driver, "order", "best first")
    assert heads(driver) == [spoken(grid.identities[i]) for i in reversed(order)][:12]


def test_every_identity_is_on_exactly_one_page(at: Callable[[Path], Chrome], page: Path, grid: Grid) -> None:
    driver = at(page)
    choose(driver, "order", "best first")
    seen = heads(driver)
    back, on = (driver.find_element(By.CSS_SELECTOR, f"#pages [name={name}]") for name in ("back", "on"))
    assert not back.is_enabled()
    while on.is_enabled():
        on.click()
        seen += heads(driver)
    assert seen == [spoken(name) for name in grid.identities]
    assert driver.find_element(By.ID, "found").text.startswith("25–30 of 30 identities")
    number = driver.find_element(By.NAME, "page")
    number.send_keys(Keys.CONTROL + "a", Keys.NULL, "2", Keys.ENTER)
    assert heads(driver) == [spoken(name) for name in grid.identities[12:24]]


def test_a_view_has_an_address(at: Callable[[Path | str], Chrome], page: Path) -> None:
    driver = at(page)
    choose(driver, "prompt", "snow")
    choose(driver, "order", "worst first")
    address, shown = driver.current_url, heads(driver)
    assert address.endswith("#gallery&prompt=2&order=worst")
    assert heads(at(address)) == shown
    wrong = at(page.as_uri() + "#gallery&prompt=99&method=7&score=x&order=best&page=-4")
    assert len(heads(wrong)) == 12  # what is unknown is left out


def test_pictures_show_what_was_drawn(at: Callable[[Path], Chrome], page: Path, scored: list[str], grid: Grid) -> None:
    """The cells of the small pictures are the right ones: on screen they look like the images in the store."""
    driver = at(page)
    choose(driver, "prompt", "snow")
    choose(driver, "order", "best first")
    name = heads(driver)[1].replace(" ", "_")
    entry = load_entries(scored, [])[1]
    (data,) = entry.pictures(entry.first[(entry.first["identity"] == name) & (entry.first["prompt"] == "snow")])
    cell = driver.find_elements(By.CSS_SELECTOR, "#people article")[1].find_elements(By.CLASS_NAME, "cut")[2]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", cell)
    until(driver, lambda d: d.execute_script("return arguments[0].firstChild.complete", cell))
    with Image.open(io.BytesIO(cell.screenshot_as_png)) as screen, Image.open(io.BytesIO(data)) as drawn:
        got, wanted = (list(i.convert("RGB").resize((4, 4), Image.Resampling.BOX).getdata()) for i in (screen, drawn))
    assert max(abs(a - b) for p, q in zip(got, wanted, strict=True) for a, b in zip(p, q, strict=True)) < 24


def test_pictures_open_and_turn_by_key(at: Callable[[Path], Chrome], page: Path, grid: Grid) -> None:
    driver = at(page)
    driver.find_element(By.CSS_SELECTOR, "#people .method .cell").send_keys(Keys.ENTER)
    dialog = driver.find_element(By.ID, "one")
    assert dialog.is_displayed()
    facts = lambda: [d.text for d in dialog.find_elements(By.CSS_SELECTOR, "dd")]  # noqa: E731
    assert facts()[:2] == ["e4t", "a photo of S*"]
    driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert facts()[1] == "a pencil sketch of S*"
    driver.switch_to.active_element.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert facts()[:2] == ["lora", "a photo of S* in the snow"]
    dialog.find_element(By.NAME, "only").click()
    assert not dialog.is_displayed()
    assert heads(driver) == [spoken(grid.identities[0])]


def test_points_of_the_plot_say_what_they_are(at: Callable[[Path], Chrome], page: Path, grid: Grid) -> None:
    driver = at(page)
    tip = driver.find_element(By.ID, "tip")
    driver.execute_script("document.querySelector('#tradeoff g[tabindex]').focus()")
    assert tip.text.splitlines()[0] == "e4t"
    assert "30 identities" in tip.text
    driver.execute_script("document.activeElement.blur()")
    assert not tip.is_displayed()
    dots = driver.find_elements(By.CSS_SELECTOR, "#tradeoff g.one")
    assert len(dots) == IDENTITIES * len(METHODS)
    dot = min(dots, key=lambda d: float(d.find_element(By.TAG_NAME, "circle").get_attribute("cy")))  # topmost: alone
    name = spoken(grid.identities[int(dot.get_attribute("data-identity"))])
    driver.execute_script("document.querySelector('#tradeoff').scrollIntoView({behavior: 'instant'})")
    mouse = ActionChains(driver)
    mouse.move_to_element(dot.find_element(By.TAG_NAME, "circle")).perform()
    assert tip.text.splitlines()[0] == name
    assert len(tip.find_elements(By.TAG_NAME, "img")) == 4
    mouse.click().perform()
    assert heads(driver) == [name]


def test_light_and_dark(at: Callable[[Path], Chrome], page: Path, driver: Chrome) -> None:
    """The reader's system decides until the button does."""
    ground = "return getComputedStyle(document.body).backgroundColor"
    seen = {}
    for scheme in ("light", "dark"):
        browser.media(driver, prefers_color_scheme=scheme)
        at(page)
        seen[scheme] = driver.execute_script(ground)
    assert seen["light"] != seen["dark"]
    button = driver.find_element(By.ID, "theme")
    assert button.text == "Light"
    button.click()
    assert driver.execute_script(ground) == seen["light"]
    assert button.text == "Dark"
    button.click()
    assert driver.execute_script(ground) == seen["dark"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_can_be_read_and_has_a_name(at: Callable[[Path], Chrome], page: Path, driver: Chrome, scheme: str) -> None:
    """Contrast of text at least 4.5 to 1 (WCAG AA); controls, pictures and table heads are named; ids are unique."""
    browser.media(driver, prefers_color_scheme=scheme)
    at(page)
    for _ in range(2):
        assert driver.execute_script(browser.PALE) == []
        assert driver.execute_script(browser.UNNAMED) == []
        choose(driver, "order", "worst first")  # then as the script writes it
        choose(driver, "prompt", "sketch")


def test_the_keyboard_reaches_everything(at: Callable[[Path], Chrome], page: Path) -> None:
    driver = at(page)
    driver.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert driver.switch_to.active_element.get_attribute("class") == "skip"
    reached = set()
    for _ in range(30):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        active = driver.switch_to.active_element
        reached.add(active.get_attribute("name") or active.get_attribute("id") or active.get_attribute("aria-label"))
    assert {"theme", "who", "method", "prompt", "score", "order", "size"} <= reached
    assert any(str(name).startswith("e4t\n") for name in reached)  # a point of the plot


def test_nothing_moves_for_who_wants_no_motion(at: Callable[[Path], Chrome], page: Path, driver: Chrome) -> None:
    how = "return getComputedStyle(document.documentElement).scrollBehavior"
    for wish, scrolls in (("reduce", "auto"), ("no-preference", "smooth")):
        browser.media(driver, prefers_reduced_motion=wish)
        at(page)
        assert driver.execute_script(how) == scrolls


def test_a_phone_is_wide_enough(at: Callable[[Path], Chrome], page: Path, driver: Chrome) -> None:
    browser.phone(driver, 360)
    at(page)
    wide = "return document.documentElement.scrollWidth"
    assert driver.execute_script(wide) == 360
    choose(driver, "prompt", "snow")
    assert driver.execute_script(wide) == 360


def test_paper_gets_the_pictures_and_no_controls(at: Callable[[Path], Chrome], page: Path, driver: Chrome) -> None:
    browser.media(driver, "print", prefers_color_scheme="dark")
    at(page)
    for name in ("find", "theme", "pages"):
        assert not driver.find_element(By.ID, name).is_displayed()
    assert driver.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert len(heads(driver)) == 12
    assert driver.execute_script(browser.PALE) == []


@pytest.fixture(scope="module")
def beside(scored: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report(scored, tmp_path_factory.mktemp("beside"), "--embed-mb", "0")


@pytest.mark.parametrize("there", [True, False])
def test_pictures_beside_the_page(
    at: Callable[[Path], Chrome], beside: Path, tmp_path: Path, driver: Chrome, there: bool
) -> None:
    """Too many for one file: they come from the folder, and the page says so where the folder was left behind."""
    at(beside if there else Path(shutil.copy(beside, tmp_path)))
    inside = "return [...document.querySelectorAll('#people img')].every((i) => i.complete && i.naturalWidth)"
    assert driver.execute_script(inside)  # the best and the worst need no folder
    choose(driver, "order", "best first")
    first = driver.find_element(By.CSS_SELECTOR, "#people article")
    driver.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", first)
    if there:
        until(driver, lambda d: first.find_element(By.TAG_NAME, "img").get_property("naturalWidth") == 3 * 64)
    else:
        until(driver, lambda d: "lost" in first.get_attribute("class"))
        told = driver.execute_script(
            "return getComputedStyle(arguments[0].querySelector('.drawn'), '::before').content", first
        )
        assert "folder report_files, which is not beside this page" in told
        driver.get("about:blank")  # the pictures below are not there either; none is asked for after this
        assert {"ERR_FILE_NOT_FOUND" in line["message"] for line in driver.get_log("browser")} == {True}
