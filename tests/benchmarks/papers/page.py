"""The page: ours beside theirs, and a verdict for each claim."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from e4t_core.metrics._statistics import Interval, bootstrap_mean
from jobs._aggregates import with_interval, with_spread
from jobs._report.inputs import Entry
from tests.benchmarks.papers.claims import CLAIMS, difference, judge, resampling, those, told
from tests.benchmarks.papers.sections import SECTIONS, Section
from tests.benchmarks.papers.studies import STUDIES, Results

_SCORES = {
    "identity": "ID",
    "identity_heldout": "ID, held out",
    "clip_t": "CLIP-T",
    "clip_i": "CLIP-I",
    "diversity": "diversity",
    "kid": "KID",
}

_PLOTS = {
    "fig4a": "papers_e4t_4a.png",
    "fig4b": "papers_e4t_4b.png",
    "da5b": "papers_domain_agnostic_5b.png",
}


def plots(results: Results) -> dict[str, tuple[str, list[Entry]]]:
    """Section -> its picture's file beside the page, and the points on it, its rows; one point alone is no plot."""
    found = {
        section.claims: (_PLOTS[section.claims], [e for place in section.rows.values() if (e := results.entry(place))])
        for section in SECTIONS
        if section.claims in _PLOTS
    }
    return {claims: plot for claims, plot in found.items() if len(plot[1]) > 1}


def page(results: Results, command: str) -> str:
    """Markdown."""
    parts = [_HEAD.format(command=command, commands="\n".join(_lines(results)), tally=_tally(results))]
    return "\n".join([*parts, *(_section(section, results) for section in SECTIONS), _sources(results)])


_HEAD = """# The papers' tables in miniature

Every method on people of the tiny world that no training saw, on two CPU cores, beside what the papers print. Levels
cannot be compared: the model, the judges and the people are others, and all are small. What can be are differences.
Each claim of a paper is a difference between two rows, paired by identity: *reproduced* if the 95 % bootstrap interval
of the mean difference lies wholly on the claim's side, *not reproduced* if it lies wholly on the other, *not told
apart* if it holds zero.

Made by `{command}`, which runs what is missing of

```sh
{commands}
```

{tally}
"""


def _tally(results: Results) -> str:
    """How many claims ended how."""
    counts = Counter(judge(claim, results).word for claims in CLAIMS.values() for claim in claims)
    return f"Of {counts.total()} claims: {', '.join(f'{n} {word}' for word, n in counts.most_common())}."


def _sources(results: Results) -> str:
    """When each study's figures were measured, with which recipes."""
    lines = ["## Where the figures come from", "", "| | measured | recipe |", "|---|---|---|"]
    for study, entries in results.found.items():
        for name, entry in entries.items():
            day = datetime.fromtimestamp(entry.result["created"], UTC).date()
            lines.append(f"| `{study}/{name}` | {day} | {entry.result['recipe_hash']} |")
    return "\n".join([*lines, ""])


def _lines(results: Results) -> list[str]:
    return [f"python -m jobs {shlex.join(study.command)} --out OUT/{study.name}" for study in STUDIES]


def _section(section: Section, results: Results) -> str:
    ours = {label: results.entry(place) for label, place in section.rows.items()}
    found = [_row(label, entry, section) for label, entry in ours.items() if entry is not None]
    theirs = [_printed(label, row, section.columns) for label, row in section.theirs.items()]
    titles = _titles(section)
    people = sorted({_identities(entry, section.of) for entry in ours.values() if entry is not None})
    head = ["", f"| {' and '.join(map(str, people)) or 'no'} identities | {' | '.join(titles)} |"]
    lines = [f"## {section.title}", *head, "|---" * (len(titles) + 1) + "|", *found, *theirs, ""]
    lines += [section.note, ""] if section.note else []
    lines += _against(section, ours)
    if section.claims in (drawn := plots(results)):
        lines += [f"![likeness over prompt]({drawn[section.claims][0]})", ""]
    for claim in CLAIMS[section.claims]:
        verdict = judge(claim, results)
        lines.append(f"- {claim.text}: **{verdict.word}** ({verdict.why}).")
    return "\n".join([*lines, ""])


def _titles(section: Section) -> list[str]:
    return [_SCORES.get(column, column.replace("_", " ")) for column in section.columns]


def _against(section: Section, entries: Mapping[str, Entry | None]) -> Iterator[str]:
    """A table of what each variant changes, paired by identity; nothing where there is nothing to compare with."""
    whole = entries.get(section.against)
    others = {label: entry for label, entry in entries.items() if entry is not None and entry is not whole}
    if whole is None or not others:
        return
    yield f"Each less `{section.against}`, paired by identity, in bold where the 95 % interval leaves out zero:"
    yield from ("", f"| | {' | '.join(_titles(section))} |", "|---" * (len(section.columns) + 1) + "|")
    for label, entry in others.items():
        gaps = (difference(entry, whole, column, section.of) for column in section.columns)
        yield f"| {label} | {' | '.join(map(_gap, gaps))} |"
    yield ""


def _gap(gap: Interval) -> str:
    return f"**{told(gap)}**" if gap.low > 0 or gap.high < 0 else told(gap)


def _identities(entry: Entry, of: str) -> int:
    return len(those(dict.fromkeys(entry.rows["identity"], 0.0), of)) if of else int(entry.figures["identities"])


def _row(label: str, entry: Entry, section: Section) -> str:
    cells = (_cell(entry, column, section.of) for column in section.columns)
    return f"| {label} | {' | '.join(cells)} |"


def _cell(entry: Entry, column: str, of: str) -> str:
    figures = entry.figures
    if of:
        return with_interval(asdict(bootstrap_mean(those(entry.means(column), of), **resampling(entry))))
    if column in figures.get("sets", {}):
        return with_spread(figures["sets"][column])
    if column in figures["costs"]:
        return f"{figures['costs'][column]['mean']:,.1f}"
    score = figures["scores"].get(column)
    return "–" if score is None else with_interval(score)


def _printed(label: str, row: Mapping[str, float | str], columns: Sequence[str]) -> str:
    return f"| *{label} (paper)* | {' | '.join(str(row.get(column, '–')) for column in columns)} |"
