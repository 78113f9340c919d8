"""Progress in a log: whole lines, few of them."""

from __future__ import annotations

import itertools

import pytest
from tqdm import tqdm

from jobs import _progress


def test_a_log_gets_whole_lines_at_most_one_in_an_interval(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count()  # a second for every look at it
    monkeypatch.setattr(_progress.time, "monotonic", lambda: float(next(clock)))
    with _progress.progress_bar(200, "tune", "step") as bar:
        for _ in range(200):
            bar.set_postfix_str("loss 0.1", refresh=True)
            tqdm.write("said", file=bar.fp)
            bar.update(1)
    text = capsys.readouterr().err
    lines = [line for line in text.splitlines() if line.startswith("tune")]
    assert "\r" not in text
    assert 10 < len(lines) < 100
    assert "200/200" in lines[-1]
    assert "loss 0.1" in lines[-1]


def test_a_bar_that_has_done_nothing_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    with _progress.progress_bar(None, "preprocess", "shard"):
        pass
    assert capsys.readouterr().err == "preprocess: 0shard [00:00, ?shard/s]\n"
