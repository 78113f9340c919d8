"""Which tables of the papers are made, of which evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs._report.published import TABLES
from tests.benchmarks.papers.claims import UNSEEN

Figures = Mapping[str, Mapping[str, float | str]]
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
        against: label of the row that the others are variants of, to tell them from it by identity; empty for none.
    """

    title: str
    claims: str
    rows: Mapping[str, str]
    columns: Sequence[str]
    theirs: Figures
    note: str
    of: str = ""
    against: str = ""


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
        "textual_inversion_same_time": "Textual Inversion, as long as E4T",
        "dreambooth_same_time": "DreamBooth, as long as E4T",
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
            "e4t", "textual_inversion_same_time", "dreambooth_same_time", "lora_same_time", "textual_inversion",
            "dreambooth", "lora", "textual_inversion_all", "dreambooth_all", "lora_all",
        ),
        ("identity", "identity_heldout", "clip_t", "diversity", "steps", "seconds_personalize"),
        {},
        _PRINTS_NONE + " `As long as E4T` are stopped after the mean time that E4T took in the same night. "
        "DreamBooth is closer to its people then, half-way, and follows more of the prompt, than after all of its "
        "steps; claims about DreamBooth, here and below, are about all of them. Rows of other days (last table) are of "
        "hours when the machine was more or less busy: their seconds are rough.",
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
        _PRINTS_NONE + " After so short a pre-training the encoder alone carries no likeness (`no tuning`): what its "
        "parts give is small beside the tuning.",
        against="full",
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
        against="full",
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
        against="full",
    ),
    Section(
        "Domain-agnostic encoder: classes that no training saw",
        "da_unseen",
        _variants("domain_agnostic", "full", "no_tuning", "no_dual_path", "e4t_of_faces"),
        ("clip_i", "clip_t"),
        {},
        "`e4t of faces` is E4T's encoder of faces, tuned as E4T is, on the same objects.",
        of=UNSEEN,
        against="full",
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
        against="full",
    ),
)  # fmt: skip
