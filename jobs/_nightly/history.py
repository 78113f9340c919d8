"""Finished nights, kept for good.

==============================================  ======================================================================
``nights/<date>/night.json``                    the night was begun: with which recipe; created exclusively
``nights/<date>/<method>/``                     what its commands wrote, resumable; pictures go after some nights
``history/scores/<content hash>.parquet``       a night's scores by method, metric and identity
``history/<date>.json``                         the night is finished: its verdict; created exclusively, never changed
``history/<date>.accepted.json``                why somebody took its drops for good; created exclusively
``history/<date>.told.json``                    its summary reached the webhook
==============================================  ======================================================================
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from e4t_core.errors import DataError, UsageError
from e4t_core.record import content_hash
from e4t_core.storage import Store
from jobs._run_folder import differences
from jobs._units import parquet

SCHEMA = 1
FOLDER = "history"
SCORES = pa.schema(
    [("method", pa.string()), ("metric", pa.string()), ("identity", pa.string()), ("value", pa.float64())]
)
Scores = dict[str, dict[str, dict[str, float]]]
"""Method -> metric -> identity -> mean over its images."""
Night = dict[str, Any]
"""A ``history/<date>.json``, with ``accepted``: the reason, or None."""
_SHOWN = 6


class History:
    """The nights under one ``--out``."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def begin(self, date: str, asked: Mapping[str, Any], lineage: Mapping[str, Any]) -> None:
        """Make the date a night of this recipe, or make sure that it is.

        Args:
            asked: everything that decides the night.

        Raises:
            UsageError: it was begun with another; names what differs.
        """
        key = f"nights/{date}/night.json"
        self.store.create(key, _text({"schema": SCHEMA, "date": date, "asked": asked, **lineage}))
        lines = differences(self.store.read_json(key)["asked"], asked)
        if lines:
            more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
            raise UsageError(
                f"the night {date} in {self.store.uri} is one of another recipe: {'; '.join(lines[:_SHOWN])}{more}. "
                "Use its recipe, another --date or another --out"
            )

    def begun(self, date: str) -> bool:
        """Whether the night was begun."""
        return self.store.exists(f"nights/{date}/night.json")

    def read(self, date: str) -> Night | None:
        """A finished night, or None.

        Raises:
            DataError: a newer e4t wrote it.
        """
        try:
            night: Night = self.store.read_json(f"{FOLDER}/{date}.json")
        except FileNotFoundError:
            return None
        if night["schema"] > SCHEMA:
            raise DataError(f"{self.store.uri} has history schema {night['schema']}; this e4t reads {SCHEMA}: upgrade")
        return {**night, "accepted": self._accepted(date)}

    def nights(self) -> list[Night]:
        """Every finished night, oldest first."""
        names = [entry.key.removeprefix(f"{FOLDER}/") for entry in self.store.list(FOLDER)]
        dates = sorted(name.removesuffix(".json") for name in names if name.count(".") == 1 and "/" not in name)
        return [night for date in dates if (night := self.read(date))]

    def commit(self, night: Night, scores: Scores) -> Night:
        """Keep a finished night; returns the one that stands, which may be a faster racer's."""
        rows = [
            {"method": method, "metric": metric, "identity": who, "value": value}
            for method, metrics in scores.items()
            for metric, values in metrics.items()
            for who, value in values.items()
        ]
        data = parquet(rows, SCORES)
        key = f"{FOLDER}/scores/{content_hash(data, 16)}.parquet"
        self.store.put(key, data)
        self.store.create(f"{FOLDER}/{night['date']}.json", _text({**night, "schema": SCHEMA, "scores": key}))
        standing = self.read(night["date"])
        if standing is None:
            raise DataError(f"{self.store.uri}: the night {night['date']} was deleted while it was written")
        return standing

    def scores(self, night: Night) -> Scores:
        """A finished night's scores."""
        table: pd.DataFrame = pq.read_table(io.BytesIO(self.store.read(night["scores"]))).to_pandas()
        out: Scores = {}
        for (method, metric), rows in table.groupby(["method", "metric"], sort=False):
            values = dict(zip(rows["identity"], rows["value"].astype(float), strict=True))
            out.setdefault(str(method), {})[str(metric)] = values
        return out

    def accept(self, date: str, why: str) -> Night:
        """Let later nights be compared with this one, drops and all.

        Raises:
            UsageError: there is no such night, or it has been accepted for another reason.
        """
        night = self.read(date)
        if night is None:
            raise UsageError(f"there is no finished night {date} in {self.store.uri} to accept")
        self.store.create(f"{FOLDER}/{date}.accepted.json", _text({"why": why}))
        if (standing := self._accepted(date)) != why:
            raise UsageError(f"the night {date} has been accepted already: {standing}")
        return {**night, "accepted": why}

    def _accepted(self, date: str) -> str | None:
        try:
            return str(self.store.read_json(f"{FOLDER}/{date}.accepted.json")["why"])
        except FileNotFoundError:
            return None

    def told(self, date: str) -> bool:
        """Whether the night's summary reached the webhook."""
        return self.store.exists(f"{FOLDER}/{date}.told.json")

    def tell(self, date: str) -> None:
        """Note that it did."""
        self.store.create(f"{FOLDER}/{date}.told.json", _text({"told": True}))

    def tidy(self, keep: int) -> list[str]:
        """Delete adapters and pictures of all but the newest ``keep`` nights; the nights whose were deleted."""
        old = [night["date"] for night in self.nights()][:-keep]
        gone = []
        for date in old:
            keys = [entry.key for entry in self.store.list(f"nights/{date}") if _bulky(entry.key)]
            for key in keys:
                self.store.delete(key)
            if keys:
                gone.append(date)
        return gone


def _bulky(key: str) -> bool:
    """Of ``nights/<date>/<method>/<kind>/...``."""
    return key.split("/")[3:4] in (["adapters"], ["images"])


def good(night: Night) -> bool:
    """Whether later nights are compared with it."""
    return night["status"] != "regressed" or night["accepted"] is not None


def good_nights(nights: Iterable[Night], method: str, fingerprint: str) -> list[Night]:
    """Those in which ``method`` had this fingerprint, in their order; the last is what a night is compared with."""
    return [n for n in nights if good(n) and n["methods"].get(method, {}).get("fingerprint") == fingerprint]


def since_it_moved(nights: Sequence[Night], method: str, metric: str) -> list[Night]:
    """Of a method's good nights the last in a row that go on from one in which the score moved, that one included."""
    for i in range(len(nights) - 1, 0, -1):
        found = (f for f in nights[i]["findings"] if (f["method"], f["metric"]) == (method, metric))
        if any(finding["verdict"] in ("drop", "gain") for finding in found):
            return list(nights[i:])
    return list(nights)


def newest(nights: Iterable[Night], method: str) -> Night | None:
    """The newest good night that has ``method`` at all."""
    having = [n for n in nights if good(n) and method in n["methods"]]
    return having[-1] if having else None


def _text(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
