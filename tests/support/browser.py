"""Chromium without a window, for tests and benchmarks of pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

REQUIRED = "E4T_REQUIRE_BROWSER"
"""Set where a browser must be there: its tests then fail without one, instead of being skipped."""
_QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--force-device-scale-factor=1",
)  # fmt: skip

PALE = """
  const shade = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)$/.test(c) && c !== 'transparent') return c; } return 'rgb(255, 255, 255)'; };
  const poor = new Set();
  for (const e of document.querySelectorAll('body *')) {
    const says = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!says || !e.checkVisibility() || e.disabled) continue;
    const style = getComputedStyle(e), [a, b] = [e.closest('svg') ? style.fill : style.color, ground(e)].map(shade);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.add(`${e.tagName} ${e.className.baseVal ?? e.className}: ${ratio.toFixed(2)}`);
  }
  return [...poor];
"""
"""A script that lists text of less contrast than 4.5 to 1 (WCAG AA)."""
UNNAMED = """
  const named = (e) => e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()
    || e.querySelector('img[alt]:not([alt=""])');
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  return [
    ...[...document.querySelectorAll('button, a, input, select')].filter((e) => !named(e)),
    ...[...document.images].filter((e) => !e.alt && !e.closest('[aria-hidden=true]')),
    ...[...document.querySelectorAll('table thead th, table tbody th')].filter((e) => !e.scope),
  ].map((e) => e.outerHTML.slice(0, 200)).concat(ids.filter((id, at) => ids.indexOf(id) !== at));
"""
"""A script that lists controls, pictures and table heads without a name, and ids that stand twice."""


def missing() -> str:
    """Why there is no browser here; empty if there is one."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if not absent:
        return ""
    return f"{' and '.join(absent)} not on this machine (Debian: apt-get install chromium chromium-driver)"


def required() -> bool:
    """Whether tests must not be skipped for want of a browser."""
    return os.environ.get(REQUIRED, "") not in ("", "0")


@contextmanager
def chromium(profile: Path, width: int = 1200, height: int = 900) -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile of its own; its console is kept for ``get_log("browser")``."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*_QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        yield driver
    finally:
        driver.quit()


def media(driver: webdriver.Chrome, kind: str = "", **features: str) -> None:
    """See the page as that medium (``print``) and reader (``prefers_color_scheme="dark"``) would."""
    wanted: list[dict[str, Any]] = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": wanted})


def phone(driver: webdriver.Chrome, width: int = 390, height: int = 844) -> None:
    """A small upright screen."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
