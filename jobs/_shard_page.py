"""A store on one page: what is in it, what it took, what was quarantined and why, what it looks like."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from e4t_core.schema import image_member
from jobs._report import plots, words
from jobs._report.gallery import Picture, inline
from jobs._report.html import template
from jobs._shard_sheets import Sheet, spread
from pipelines.loader import ShardDataset

_COVER = 6
_BARS = 40
"""Most bars of a histogram; more values than that share them."""


def render(figures: dict[str, Any], dataset: ShardDataset, sheets: Sequence[dict[str, Any]], command: str) -> str:
    """The whole page as one HTML document.

    Args:
        figures: what :func:`pipelines.shards.stats.measure` says.
        sheets: see :func:`shown`.
        command: the command that makes this page.
    """
    name = figures["recipe"]["name"] or figures["source"]
    return template("shards.html").render(
        figures=figures,
        title=f"{words.plural(figures['samples'], 'sample')} in {words.plural(figures['shards'], 'shard')}",
        name=name,
        lede=_lede(figures),
        cover=_cover(dataset),
        tiles=_tiles(figures),
        columns=_columns(figures["columns"]),
        qualities=[_quality(name, c["quality"]) for name, c in figures["columns"].items() if c["quality"]],
        devices=sorted({device for column in figures["columns"].values() for device in column["seconds"]}),
        identities=_identities(figures["identities"]),
        labels=[_label(key, value) for key, value in figures["labels"].items()],
        captions=_captions(figures["captions"]),
        quarantine=figures["quarantine"],
        sheets=sheets,
        masked="mask" in figures["columns"],
        facts=_facts(figures),
        command=command,
    )


def shown(sheet: Sheet, href: str) -> dict[str, Any]:
    """A sheet as the page holds it: inlined, and leading to the file beside the page."""
    src = f"data:image/webp;base64,{base64.b64encode(sheet.webp()).decode()}"
    return {"shard": sheet.shard, "samples": sheet.samples, "shown": sheet.shown, "src": src, "href": href}


def _lede(figures: dict[str, Any]) -> str:
    good, bad = figures["samples"], figures["quarantined"]
    text = f"Of {words.plural(figures['planned'], 'sample')} that the source lists, {words.count(good)} "
    text += f"{'is' if good == 1 else 'are'} whole in every column ({words.listed(list(figures['columns']))}); "
    if not bad:
        return text + "none is quarantined."
    share = 100 * bad / figures["planned"]
    return text + f"{words.count(bad)} ({share:.2g}{words.THIN}%) {'is' if bad == 1 else 'are'} quarantined."


def _cover(dataset: ShardDataset) -> list[Picture]:
    if "ingest" not in dataset.columns or not len(dataset):
        return []
    samples = dataset.samples(spread(len(dataset), _COVER), ["ingest"])
    return [Picture(inline(s[image_member(s)]), s["__id__"], "", s["__id__"]) for s in samples]


def _tiles(figures: dict[str, Any]) -> list[dict[str, str]]:
    people = figures["identities"]["count"]
    computed = sum(sum(c["seconds"].values()) for c in figures["columns"].values())
    tiles = [
        ("planned", words.count(figures["planned"])),
        ("good", words.count(figures["samples"])),
        ("quarantined", words.count(figures["quarantined"])),
        ("identities", words.count(people) if people else words.DASH),
        ("size", words.size(figures["bytes"])),
        ("computing", words.seconds(computed)),
    ]
    return [{"name": name, "value": value} for name, value in tiles]


def _columns(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the table; bars compare the columns' sizes and times."""
    took = {name: sum(column["seconds"].values()) for name, column in columns.items()}
    size, time = (max(values, default=0) or 1 for values in ([c["bytes"] for c in columns.values()], took.values()))
    return [
        {
            **column,
            "name": name,
            "each": column["bytes"] / column["samples"] if column["samples"] else None,
            "size_share": column["bytes"] / size,
            "time_share": took[name] / time,
        }
        for name, column in columns.items()
    ]


def _quality(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """A column's figures as rows of text, and what became of its samples."""
    rows = [
        {"name": figure.replace("_", " "), **{at: _amount(figure, value) for at, value in spread_over.items()}}
        for figure, spread_over in found["figures"].items()
    ]
    failed = [f"{words.count(n)} {reason.replace('_', ' ')}" for reason, n in found["failed"].items()]
    return {**found, "name": name, "rows": rows, "failed": words.listed(failed) if failed else ""}


def _amount(figure: str, value: float) -> str:
    if figure == "seconds":
        return words.seconds(value)
    return words.count(value) if value.is_integer() else words.number(value, 4)


# --- histograms


def _ranked(found: dict[str, Any], total: int) -> dict[str, Any]:
    """Bars for the largest values, and the rest in words."""
    highest = max((n for _, n in found["largest"]), default=1)
    rows = [
        {"value": value, "count": n, "width": n / highest, "share": n / total if total else 0.0}
        for value, n in found["largest"]
    ]
    return {"rows": rows, "others": found["others"]}


def _whole(pairs: Iterable[Sequence[int]], x_label: str, y_label: str) -> Markup:
    """A histogram of ``[whole number, how often]``."""
    edges, counts = binned(list(pairs), _BARS)
    return plots.histogram([edge - 0.5 for edge in edges], counts, x_label, y_label, whole=True)


def binned(pairs: Sequence[Sequence[int]], most: int) -> tuple[list[int], list[int]]:
    """At most ``most`` bins of equal whole width over ascending ``[number, how often]``: (edges, counts)."""
    low, high = pairs[0][0], pairs[-1][0]
    width = -(-(high - low + 1) // most)
    counts = [0] * ((high - low) // width + 1)
    for value, n in pairs:
        counts[(value - low) // width] += n
    return [low + i * width for i in range(len(counts) + 1)], counts


def _identities(found: dict[str, Any]) -> dict[str, Any] | None:
    if not found["count"]:
        return None
    images = found["images"]
    samples = sum(n * people for n, people in images)
    plot = _whole(images, "images of an identity →", "↑ identities") if len(images) > 1 else None
    return {**found, "samples": samples, "each": images[0][0], "plot": plot, "ranked": _ranked(found, samples)}


def _label(name: str, found: dict[str, Any]) -> dict[str, Any]:
    if "histogram" in found:
        spread_over = found["histogram"]
        plot = plots.histogram(spread_over["edges"], spread_over["counts"], f"{name} →", "↑ samples")
        return {"name": name, **found, "plot": plot}
    return {"name": name, **found, "plot": None, "ranked": _ranked(found, found["samples"])}


def _captions(found: dict[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    plot = _whole(found["words"], "words in a caption →", "↑ captions") if len(found["words"]) > 1 else None
    repeated = _ranked(found, found["samples"]) if found["distinct"] < found["samples"] else None
    return {**found, "plot": plot, "repeated": repeated}


def _facts(figures: dict[str, Any]) -> dict[str, str]:
    recipe = figures["recipe"]
    facts = {
        "store": f"{figures['uri']}, version {figures['version']}",
        "source": figures["source"],
        "recipe": " ".join(filter(None, (recipe["name"], recipe["hash"] and f"({recipe['hash']})"))),
        "index": figures["index"][:16],
    }
    for name, column in figures["columns"].items():
        weights = f", weights {column['weights'][:16]}" if column["weights"] else ""
        facts[f"column {name}"] = f"version {column['version']}{weights}"
    return {key: value for key, value in facts.items() if value}
