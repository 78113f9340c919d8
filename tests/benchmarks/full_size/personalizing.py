"""Seconds, identities per hour and memory of personalization, method by method, with the recipes for one GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tests.benchmarks.full_size.rig import Rig
from tests.benchmarks.measure import Figure, ratio

AIM_GB, PAPER_GB = 16.0, 30.0


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        method: whose recipe.
        identities: learned in one call.
        steps: taken here; more are projected, where the recipe says more.
        sets: changes of the recipe.
        what: names the row.
    """

    method: str
    identities: int
    steps: int
    sets: tuple[str, ...] = ()
    what: str = ""


_NO_PRIOR = "method.prior=null"
_PLAIN = "method.personalize.gradient_checkpointing=false"
_ONE = ("method.personalize.identities=1", "method.personalize.samples=16")
CASES = (
    Case("taming_encoder", 64, 0),
    Case("domain_agnostic", 8, 12, what="8 at once"),
    Case("domain_agnostic", 8, 12, (_PLAIN,), "8 at once, no checkpointing"),
    Case("domain_agnostic", 1, 12, _ONE, "one, 16 noise levels"),
    Case("domain_agnostic", 1, 12, (*_ONE, _PLAIN), "one, 16 noise levels, no checkpointing"),
    Case("e4t", 1, 15),
    Case("hyperdreambooth", 16, 10, ("method.personalize.identities=16",), "16 at once"),
    Case("hyperdreambooth", 1, 10, ("method.personalize.identities=1",), "one by one"),
    Case("lora", 16, 20, (_NO_PRIOR,), "16 at once, no prior"),
    Case("textual_inversion", 8, 20, what="8 at once"),
    Case("dreambooth", 1, 20, (_NO_PRIOR,), "no prior"),
)


def run(rig: Rig) -> Iterator[Figure]:
    """One row a case; the memory of the domain-agnostic encoder is held to its aim."""
    for case in CASES:
        if rig.wants(case.method):
            yield from _case(rig, case)


def _case(rig: Rig, case: Case) -> Iterator[Figure]:
    recipe = rig.recipe(case.method, *case.sets)
    ours = getattr(recipe.method, "personalize", None)
    wanted = int(getattr(ours, "steps", 0) or 0)
    steps = rig.few(min(case.steps, wanted))
    sets = (f"method.personalize.steps={steps}",) if steps else ()
    if rig.small and hasattr(ours, "samples"):
        sets += ("method.personalize.samples=1",)
    method = rig.recipe(case.method, *case.sets, *sets).build_method()
    cls_1LD, _ = rig.features
    module = method.build(rig.backbone, cls_1LD.shape[1:]).eval()
    people = rig.identities(rig.few(case.identities))
    rig.fresh()
    method.personalize(module, rig.backbone, people)  # kernels choose their plans
    rig.fresh()
    taken = rig.seconds(lambda: method.personalize(module, rig.backbone, people))
    peak = rig.peak_gb()
    rig.without_checkpointing()
    each = taken / len(people) * (wanted / steps if steps else 1)
    projected = f", from {steps} of them" if steps < wanted else ""
    name = f"personalize {case.method}" + (f", {case.what}" if case.what else "")
    yield Figure(
        name, 3600 / each, "1/h", note=f"{each:.3g} s an identity, {wanted} steps{projected}, peak {peak:.1f} GB"
    )
    if case.sets == _ONE:
        yield ratio(
            f"{name}: peak / {AIM_GB:.0f} GB", peak / AIM_GB, "<= 1.0", f"the paper: less than {PAPER_GB:.0f} GB"
        )
