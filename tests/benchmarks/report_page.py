"""The report over thousands of identities: what making it takes, and what opening it takes in Chromium."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.measure import Figure, seconds
from tests.jobs import evaluations
from tests.support import browser

IDENTITIES = 5_000
METHODS = {"e4t": 0.62, "hyperdreambooth": 0.55, "lora": 0.45, "textual_inversion": 0.35}
SIDE = 64
_PAINT = """
  const done = arguments[arguments.length - 1];
  new PerformanceObserver((list, observer) => { observer.disconnect(); done(list.getEntries()
    .find((e) => e.name === 'first-contentful-paint').startTime); }).observe({ type: 'paint', buffered: true });
"""
_CHANGE = """
  const [name, value, done] = arguments, field = document.querySelector(`#find [name=${name}]`);
  const start = performance.now();
  field.value = value;
  field.dispatchEvent(new Event('change', { bubbles: true }));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - start), 0));
"""


def run(quick: bool) -> list[Figure]:
    """Bounds: 1 GB of memory; first paint in 1 s; a filter or sort is drawn in 0.2 s."""
    identities = IDENTITIES // (10 if quick else 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scored = evaluations.write(folder, evaluations.names(identities), METHODS, SIDE)
        words = [word for uri in scored for word in ("--evaluation", uri)]
        making = _making(folder / "report", words, identities)
        return [*making, *_opening(folder / "report" / "report.html", folder / "profile")]


def _making(out: Path, words: list[str], identities: int) -> list[Figure]:
    command = [sys.executable, "-m", "jobs", "report", *words, "--embed-mb", "1", "--out", str(out)]
    make = lambda: subprocess.run(command, check=True)  # noqa: E731
    first = seconds(make)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # nothing else was run before
    again = seconds(make)
    files = list((out / "report_files").iterdir())
    beside = sum(f.stat().st_size for f in files) / 1e6
    pictures = identities * len(METHODS) * len(evaluations.people.PROMPTS)
    note = f"{identities:,} identities, {len(METHODS)} methods, {pictures:,} pictures of {SIDE} px"
    return [
        Figure("report: making the page", first, "s", note=note),
        Figure("report: processor time of that", used.ru_utime + used.ru_stime, "s"),
        Figure("report: making it again, its pictures being there", again, "s"),
        _below("report: peak memory of the command", used.ru_maxrss / 1e3, "MB", 1000),
        _below("report: the page", (out / "report.html").stat().st_size / 1e6, "MB", 12),
        Figure("report: pictures beside it", beside, "MB", note=f"{len(files):,} files"),
    ]


def _opening(page: Path, profile: Path) -> list[Figure]:
    with browser.chromium(profile) as driver:
        driver.get("about:blank")
        begun = time.perf_counter()
        driver.get(page.as_uri())
        loaded = (time.perf_counter() - begun) * 1e3
        paint = driver.execute_async_script(_PAINT)
        changes = [("order", "best"), ("prompt", "1"), ("score", "1"), ("method", "2"), ("prompt", ""), ("size", "60")]
        taken = [driver.execute_async_script(_CHANGE, *change) for change in changes]
    slowest = changes[taken.index(max(taken))]
    return [
        _below("report: first contentful paint", paint, "ms", 1000),
        _below("report: loaded, script run", loaded, "ms", 3000),
        replace(
            _below("report: slowest of six filters and sorts, drawn", max(taken), "ms", 200),
            note=f"{slowest[0]}={slowest[1]}; median {sorted(taken)[len(taken) // 2]:.0f} ms",
        ),
    ]


def _below(name: str, value: float, unit: str, bound: float) -> Figure:
    return Figure(name, value, unit, f"< {bound:g}", value < bound)
