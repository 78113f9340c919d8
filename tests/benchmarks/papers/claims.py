"""What the papers claim, each as a difference that evaluations can show or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from e4t_core.metrics._statistics import Interval, bootstrap_difference
from jobs._report.inputs import Entry
from tests.benchmarks.papers.studies import Results


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper.

    Attributes:
        text: what it says, in our words.
        more, less: ``study/name`` of what should have more of the score, and of what should have less.
        score: score column, or a cost of ``evaluation.json``.
        of: how names of the identities begin that it is about; empty for all.
        untestable: why nothing here can tell; empty if something can.
    """

    text: str
    more: str = ""
    less: str = ""
    score: str = ""
    of: str = ""
    untestable: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a claim."""

    word: str
    why: str


REPRODUCED, CONTRADICTED, OPEN = "reproduced", "not reproduced", "not told apart"
UNTESTABLE, MISSING = "not testable at this size", "not run"


def judge(claim: Claim, results: Results) -> Verdict:
    """Compare by identity: reproduced if the whole 95 % interval of the mean difference is on the claim's side."""
    if claim.untestable:
        return Verdict(UNTESTABLE, claim.untestable)
    more, less = results.entry(claim.more), results.entry(claim.less)
    if more is None or less is None:
        return Verdict(MISSING, claim.less if less is None else claim.more)
    if claim.score in more.figures["costs"]:
        return _of_cost(claim.score, more.figures["costs"], less.figures["costs"])
    for place, entry in ((claim.more, more), (claim.less, less)):
        if claim.score not in entry.scores:
            return Verdict(MISSING, f"{claim.score} of {place}")
    gap = difference(more, less, claim.score, claim.of)
    return Verdict(_word(gap), f"{told(gap)}, {gap.identities} identities")


def difference(ours: Entry, theirs: Entry, score: str, of: str) -> Interval:
    """Mean of ``ours - theirs`` over the identities of both whose names begin with ``of``."""
    return bootstrap_difference(*(those(entry.means(score), of) for entry in (ours, theirs)), **resampling(ours))


def told(gap: Interval) -> str:
    """A difference with its interval, all with signs."""
    return f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def resampling(entry: Entry) -> dict[str, Any]:
    """How its intervals were drawn."""
    config = entry.result["record"]["recipe"]["evaluate"]
    return {"samples": config["bootstrap_samples"], "confidence": config["confidence"]}


def those(means: Mapping[str, float], of: str) -> dict[str, float]:
    """Identities whose names begin so."""
    return {identity: mean for identity, mean in means.items() if identity.startswith(of)}


def _word(gap: Interval) -> str:
    return REPRODUCED if gap.low > 0 else CONTRADICTED if gap.high < 0 else OPEN


def _of_cost(name: str, more: dict[str, dict[str, float]], less: dict[str, dict[str, float]]) -> Verdict:
    """Costs hardly vary between identities: their means are compared."""
    high, low = more[name]["mean"], less[name]["mean"]
    return Verdict(REPRODUCED if high > low else CONTRADICTED, f"{high:,.1f} against {low:,.1f}")


UNSEEN = "objects/"
"""Names of the domain-agnostic study's concepts of classes that no training saw."""
_E4T, _HDB, _DA, _TAMING = (
    "benchmark/e4t",
    "benchmark/hyperdreambooth",
    "benchmark/domain_agnostic",
    "benchmark/taming_encoder",
)
_TI, _DB, _LORA = "benchmark/textual_inversion", "benchmark/dreambooth", "benchmark/lora"


def _better(text: str, ours: str, theirs: Sequence[tuple[str, str]], scores: Sequence[tuple[str, str]]) -> list[Claim]:
    return [
        Claim(text.format(score=title, than=name), ours, other, column)
        for name, other in theirs
        for column, title in scores
    ]


def _lost(study: str, *variants: tuple[str, str, str]) -> list[Claim]:
    """(text, variant, score): the full method has more of the score than the variant."""
    return [Claim(text, f"{study}/full", f"{study}/{name}", score) for text, name, score in variants]


def _of(prefix: str, claims: Sequence[Claim]) -> list[Claim]:
    return [replace(claim, of=prefix) for claim in claims]


_FEW = (("Textual Inversion", _TI), ("DreamBooth", _DB))
_LIKE, _SAID = ("identity_heldout", "likeness to the held-out photo"), ("clip_t", "prompt alignment")
CLAIMS: dict[str, list[Claim]] = {
    "fig4a": _better("From one photo, E4T has more {score} than {than}", _E4T, _FEW, (_LIKE, _SAID)),
    "table2": [
        Claim("Textual Inversion takes more steps than E4T", _TI, _E4T, "steps"),
        Claim("DreamBooth takes more steps than E4T", _DB, _E4T, "steps"),
        Claim("Textual Inversion takes longer than E4T", _TI, _E4T, "seconds_personalize"),
        Claim("DreamBooth takes longer than E4T", _DB, _E4T, "seconds_personalize"),
    ],
    "fig4b": _lost(
        "e4t",
        ("Without tuning, identity is lost", "no_tuning", "identity"),
        ("Tuning our components alone loses identity", "tune_components_only", "identity"),
        ("Without iterative refinement, prompts are followed less", "no_iterative_refinement", "clip_t"),
        ("Without embedding regularization, prompts are followed less", "no_embedding_regularization", "clip_t"),
        ("With direct offsets, prompts are followed less", "direct_offsets", "clip_t"),
        ("With a hypernetwork for the offsets, prompts are followed less", "hypernetwork_offsets", "clip_t"),
        ("Without offsets, identity is lost", "no_offsets", "identity"),
    ),
    "hdb1": [
        *_better(
            "HyperDreamBooth has more {score} than {than}",
            _HDB,
            (("DreamBooth", _DB), ("Textual Inversion", _TI)),
            (("identity", "face similarity"), ("clip_i", "CLIP-I"), _SAID),
        ),
        Claim("DINO tells the same", untestable="no self-supervised network is trained on the tiny world"),
    ],
    "hdb2": _better(
        "HyperDreamBooth has more {score} than {than}",
        _HDB,
        (("DreamBooth in few steps at a higher rate", "benchmark/dreambooth_few"),),
        (("identity", "face similarity"), ("clip_i", "CLIP-I")),
    ),
    "hdb3": [
        claim
        for score, title in (("identity", "face similarity"), ("clip_i", "CLIP-I"))
        for claim in _lost(
            "hyperdreambooth",
            (f"Without the hypernetwork as many steps give less {title}", "no_hyper", score),
            (f"The prediction alone has less {title}", "only_hyper", score),
            (f"One iteration of the hypernetwork gives less {title} than several", "k_1", score),
        )
    ],
    "da5a": [
        *_better(
            "From one photo, the domain-agnostic encoder has more {score} than {than}",
            _DA,
            (*_FEW, ("LoRA", _LORA)),
            (("clip_i", "object similarity"), _SAID),
        ),
        *_better(
            "From one photo, it has more {score} than {than} from all photos",
            _DA,
            (("LoRA", "benchmark/lora_all"),),
            (("clip_i", "object similarity"), _SAID),
        ),
    ],
    "da5b": _lost(
        "domain_agnostic",
        ("Without tuning, object similarity is lost", "no_tuning", "clip_i"),
        ("Without the dual path in tuning, prompts are followed less", "no_dual_path_in_tuning", "clip_t"),
        ("Without the hypernetwork branch, object similarity is lost", "no_hypernetwork", "clip_i"),
        ("Without the dual path at all, prompts are followed less", "no_dual_path", "clip_t"),
        ("Without regularization, prompts are followed less", "no_regularization", "clip_t"),
    ),
    "da_unseen": _of(
        UNSEEN,
        _lost(
            "domain_agnostic",
            ("Without tuning, object similarity is lost", "no_tuning", "clip_i"),
            ("Without the dual path at all, prompts are followed less", "no_dual_path", "clip_t"),
            ("An encoder of faces alone has less object similarity", "e4t_of_faces", "clip_i"),
            ("An encoder of faces alone follows prompts less", "e4t_of_faces", "clip_t"),
        ),
    ),
    "taming1": [
        *_better(
            "Taming Encoder has more {score} than {than}",
            _TAMING,
            (*_FEW, ("Textual Inversion from all photos", "benchmark/textual_inversion_all"),
             ("DreamBooth from all photos", "benchmark/dreambooth_all")),
            (("clip_i", "object similarity"), ("clip_t", "caption similarity")),
        ),
        Claim(
            "Its images are nearer to images of the styles that prompts ask for (KID)",
            untestable="the table's KID is against pictures of each prompt's style; ours is against the photos",
        ),
    ],
    "taming5_9": _lost(
        "taming_encoder",
        ("Without cross-reference, images of one prompt differ less (figure 6)", "no_cross_reference", "diversity"),
        ("Tuning attention alone loses identity (figure 7)", "attention_only", "identity"),
        ("With class names for captions, prompts are followed less (figure 8)", "class_name_captions", "clip_t"),
        ("Without domain images, r = 0, identity is lost (figure 9)", "general_only", "identity"),
        ("Without the general set, r = 1, prompts are followed less (figure 9)", "domain_only", "clip_t"),
        ("With an encoder that has learned nothing, identity is lost (figure 5)", "untrained_encoder", "identity"),
    ),
}  # fmt: skip
"""Section of the page -> its claims."""
