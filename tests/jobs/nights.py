"""Nights whose commands are stood in for: shards of drawn people, and evaluations with scores out of a generator."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pandas as pd
import pytest

from e4t_core.storage import Store
from jobs import __main__ as jobs_main
from jobs.__main__ import parser
from jobs._job import Job
from tests.jobs import people

SETS = (
    "nightly.methods={e4t: {checkpoint: 'bundled:e4t_face'}, gentle: {recipe: tiny, checkpoint: 'bundled:e4t_face'}}",
    "source.identities=8",
    "personalize.max_identities=8",
    "nightly.bootstrap_samples=200",
)
TITLES = {"clip_t": "CLIP-T", "clip_i": "CLIP-I", "identity": "ID", "identity_heldout": "ID, held out"}


class Commands:
    """Stands in for ``start``.

    Attributes:
        ran: the commands in order, each parsed.
        drop: method -> score -> what it lost.
        lost: shares of images without a face, by method.
        took: seconds to learn one identity, by method.
        die: the command after which the night is killed.
    """

    def __init__(self) -> None:
        self.ran: list[Any] = []
        self.drop: dict[str, dict[str, float]] = {}
        self.lost: dict[str, float] = {}
        self.took: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.die: str | None = None

    def __call__(self, command: str, words: Sequence[str]) -> dict[str, Any]:
        args = parser(command).parse_args(list(words))
        args.command, recipe = command, Job(args).recipe
        self.ran.append(args)
        if command == "preprocess":
            count = recipe.personalize.max_identities or 8
            people.shards(args.out, people.family(count, 2))
        if command == "evaluate":
            self.evaluate(Store(args.out), args.out.split("/")[-2], recipe)
        if command == self.die:
            raise KeyboardInterrupt
        return {"report": f"{args.out}/report.html"}

    def evaluate(self, store: Store, name: str, recipe: Any) -> None:
        rows = self.rows(name, recipe)
        out = io.BytesIO()
        rows.to_parquet(out)
        store.put("rows/a.parquet", out.getvalue())
        scores = {
            column: {
                "title": title, "higher_is_better": True, "mean": float(rows[f"score_{column}"].mean()),
                "low": 0.1, "high": 0.9, "identities": 8, "images": len(rows), "failures": 0,
            }
            for column, title in TITLES.items()
        }  # fmt: skip
        costs = {"seconds_personalize": {"mean": self.took[name]}} if name in self.took else {}
        figures = {"method": recipe.method.name, "identities": 8, "images": len(rows), "scores": scores, "costs": costs}
        store.write_json(
            "evaluation.json", {"methods": [figures], "rows": "rows/a.parquet", "images": {"failed": self.failed}}
        )

    def rows(self, name: str, recipe: Any) -> pd.DataFrame:
        """Two images for each of the people; a person's level is the person's, the noise is the seed's."""
        rng = np.random.default_rng([recipe.seed, len(name)])
        out = []
        for i in range(recipe.personalize.max_identities):
            for image in range(2):
                row = {"method": recipe.method.name, "identity": f"person_{i}", "heldout": 1, "index": image}
                luck = 0.02 * rng.standard_normal()
                for column in TITLES:
                    value = 0.4 + 0.05 * i + luck + 0.005 * rng.standard_normal()
                    row[f"score_{column}"] = value - self.drop.get(name, {}).get(column, 0.0)
                if rng.random() < self.lost.get(name, 0.0):
                    row["score_identity"] = row["score_identity_heldout"] = float("nan")
                out.append(row)
        return pd.DataFrame([row for row in out if row["identity"] not in self.failed])


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Nothing but the nightly itself runs."""
    standing = Commands()
    monkeypatch.setattr("jobs.nightly.start", standing)
    monkeypatch.setattr(Job, "ray", lambda self: contextlib.nullcontext())
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("NIGHTLY_WEBHOOK", raising=False)
    return standing


def night(out: Path | str, date: str, *more: str, sets: Sequence[str] = ()) -> dict[str, Any]:
    """One night's summary, errors raised."""
    over = [word for text in (*SETS, *sets) for word in ("--set", text)]
    return jobs_main.start("nightly", ["--recipe", "nightly_tiny", *over, "--out", str(out), "--date", date, *more])


class Hook:
    """A webhook on loopback; ``refuse`` it the next requests with a status each.

    Attributes:
        url: where to post.
        posted: what was taken.
        asked: requests so far.
    """

    def __init__(self) -> None:
        self.posted: list[dict[str, Any]] = []
        self.refuse: list[int] = []
        self.asked = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.asked += 1
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.refuse.pop(0) if hook.refuse else 200
                if status == 200:
                    hook.posted.append(json.loads(body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/secret/path"
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A webhook that notes what it is told; pauses between tries take no time."""
    monkeypatch.setattr("jobs._nightly.webhook.PAUSES", (0.0, 0.0))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    listening = Hook()
    yield listening
    listening.close()
