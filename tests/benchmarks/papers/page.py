"""The page: ours beside theirs, and a verdict for each claim."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from e4t_core.metrics._statistics import bootstrap_mean
from jobs._aggregates import with_interval, with_spread
from jobs._report.inputs import Entry
from jobs._report.published import TABLES
from tests.benchmarks.papers.claims import CLAIMS, UNSEEN, judge, resampling, those
from tests.benchmarks.papers.studies import STUDIES, Results

Figures = Mapping[str, Mapping[str, float | str]]
_SCORES = {
    "identity": "ID",
    "identity_heldout": "ID, held out",
    "clip_t": "CLIP-T",
    "clip_i": "CLIP-I",
    "diversity": "diversity",
    "kid": "KID",
}
_THEIRS = {table.title: table.rows for table in TABLES}


@dataclass(frozen=True)
class Section:
    """One table of a paper.

    Attributes:
        title: heading.
        claims: key of :data:`~tests.benchmarks.papers.claims.CLAIMS`.
        rows: label -> ``study/name``.
        columns: score columns and costs.
        theirs: label -> column -> what the paper prints.
        note: what is different here.
        of: how names of the identities begin that it is about; empty for all.
    """

    title: str
    claims: str
    rows: Mapping[str, str]
    columns: Sequence[str]
    theirs: Figures
    note: str
    of: str = ""


def _benchmark(*names: str) -> dict[str, str]:
    titles = {
        "e4t": "E4T",
        "domain_agnostic": "domain-agnostic encoder",
        "taming_encoder": "Taming Encoder",
        "hyperdreambooth": "HyperDreamBooth",
        "textual_inversion": "Textual Inversion",
        "dreambooth": "DreamBooth",
        "lora": "LoRA-DreamBooth",
        "textual_inversion_all": "Textual Inversion, all photos",
        "dreambooth_all": "DreamBooth, all photos",
        "lora_all": "LoRA-DreamBooth, all photos",
        "dreambooth_few": "DreamBooth, few steps at a higher rate",
        "lora_same_time": "LoRA-DreamBooth, as long as E4T",
    }
    return {titles[name]: f"benchmark/{name}" for name in names}


def _variants(study: str, *names: str) -> dict[str, str]:
    return {name.replace("_", " "): f"{study}/{name}" for name in names}


_PRINTS_NONE = "The paper shows this as a plot; it prints no figures."
SECTIONS = (
    Section(
        "E4T, figure 4(a): identity against prompt",
        "fig4a",
        _benchmark(
            "e4t", "textual_inversion", "dreambooth", "lora", "textual_inversion_all", "dreambooth_all", "lora_all",
            "lora_same_time",
        ),
        ("identity", "identity_heldout", "clip_t", "diversity"),
        {},
        _PRINTS_NONE,
    ),
    Section(
        "E4T, table 2: steps and time",
        "table2",
        _benchmark("e4t", "textual_inversion", "dreambooth"),
        ("steps", "seconds_personalize"),
        {
            "Textual Inversion": {"steps": "5,000", "seconds_personalize": "1,517"},
            "DreamBooth": {"steps": "800 to 1,200", "seconds_personalize": "601 to 897"},
            "E4T": {"steps": "5 to 15", "seconds_personalize": "11 to 30"},
        },
        "Theirs on an A100 at batch 16; ours on a core of a CPU, with steps that suit a model of this size. Rows of "
        "different days (last table) are of different hours of one machine: take their seconds as rough.",
    ),
    Section(
        "E4T, figure 4(b): ablations",
        "fig4b",
        _variants(
            "e4t", "full", "no_tuning", "tune_components_only", "tune_denoiser_only", "no_iterative_refinement",
            "no_embedding_regularization", "direct_offsets", "no_offsets", "hypernetwork_offsets",
        ),
        ("identity", "clip_t", "clip_i"),
        {},
        _PRINTS_NONE,
    ),
    Section(
        "HyperDreamBooth, table 1",
        "hdb1",
        _benchmark("hyperdreambooth", "dreambooth", "textual_inversion"),
        ("identity", "clip_i", "clip_t"),
        _THEIRS["HyperDreamBooth, table 1"],
        "",
    ),
    Section(
        "HyperDreamBooth, table 2",
        "hdb2",
        _benchmark("hyperdreambooth", "dreambooth_few"),
        ("identity", "clip_i"),
        next(rows for title, rows in _THEIRS.items() if title.startswith("HyperDreamBooth, table 2")),
        "The paper takes DreamBooth to 400 and 40 of its 1,200 steps; ours to 15 of 60.",
    ),
    Section(
        "HyperDreamBooth, table 3",
        "hdb3",
        _variants("hyperdreambooth", "full", "no_hyper", "only_hyper", "k_1", "nothing"),
        ("identity", "clip_i", "clip_t"),
        _THEIRS["HyperDreamBooth, table 3"],
        "`nothing` is the backbone with the prompt alone.",
    ),
    Section(
        "Domain-agnostic encoder, figure 5(a)",
        "da5a",
        _benchmark("domain_agnostic", "textual_inversion", "dreambooth", "lora", "lora_all", "dreambooth_all"),
        ("clip_i", "clip_t"),
        {},
        _PRINTS_NONE + " On people alone: the paper's concepts are of many domains.",
    ),
    Section(
        "Domain-agnostic encoder, figure 5(b): ablations",
        "da5b",
        _variants(
            "domain_agnostic", "full", "no_tuning", "no_dual_path", "no_dual_path_in_tuning", "no_hypernetwork",
            "no_regularization", "l2_only", "nearest_cosine",
        ),
        ("clip_i", "clip_t"),
        {},
        "In words: 20 % of object similarity is lost without tuning, nearly 30 % of prompt alignment without the dual "
        "path in tuning.",
    ),
    Section(
        "Domain-agnostic encoder: classes that no training saw",
        "da_unseen",
        _variants("domain_agnostic", "full", "no_tuning", "no_dual_path", "e4t_of_faces"),
        ("clip_i", "clip_t"),
        {},
        "`e4t of faces` is E4T's encoder of faces, tuned as E4T is, on the same objects.",
        UNSEEN,
    ),
    Section(
        "Taming Encoder, table 1",
        "taming1",
        _benchmark("taming_encoder", "textual_inversion", "textual_inversion_all", "dreambooth", "dreambooth_all"),
        ("clip_i", "clip_t", "kid"),
        next(rows for title, rows in _THEIRS.items() if title.startswith("Taming Encoder")),
        "",
    ),
    Section(
        "Taming Encoder, figures 5 to 9: ablations",
        "taming5_9",
        _variants(
            "taming_encoder", "full", "no_cross_reference", "always_cross_reference", "attention_only",
            "class_name_captions", "full_captions", "general_only", "domain_only", "untrained_encoder",
            "with_background",
        ),
        ("identity", "clip_t", "clip_i", "diversity"),
        {},
        "The paper shows these as pictures. `full` has coarse captions here: the attribute words of this world name "
        "all that tells its people apart, see `full captions`.",
    ),
)  # fmt: skip


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
    titles = [_SCORES.get(c, c.replace("_", " ")) for c in section.columns]
    people = sorted({_identities(entry, section.of) for entry in ours.values() if entry is not None})
    head = ["", f"| {' and '.join(map(str, people)) or 'no'} identities | {' | '.join(titles)} |"]
    lines = [f"## {section.title}", *head, "|---" * (len(titles) + 1) + "|", *found, *theirs, ""]
    lines += [section.note, ""] if section.note else []
    if section.claims in (drawn := plots(results)):
        lines += [f"![likeness over prompt]({drawn[section.claims][0]})", ""]
    for claim in CLAIMS[section.claims]:
        verdict = judge(claim, results)
        lines.append(f"- {claim.text}: **{verdict.word}** ({verdict.why}).")
    return "\n".join([*lines, ""])


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
