"""The recipe: everything that decides a run, resolved before anything starts.

``NAME`` (a file under ``jobs/recipes/``), path or URI -> ``extends`` chain -> ``--set`` -> one frozen section each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import resources
from typing import Any

from e4t_core.backbones.config import BackboneConfig, ClipConfig, Models
from e4t_core.config import Config, apply_overrides, merge, parse_yaml, validate
from e4t_core.errors import UsageError, nearest
from e4t_core.methods import METHODS, Method, MethodConfig
from e4t_core.metrics import METRICS, MetricConfig
from e4t_core.record import fingerprint
from e4t_core.registry import Registry
from e4t_core.storage import Store
from e4t_core.training import TrainConfig
from jobs._sections import (
    AblationsConfig,
    BenchmarkConfig,
    EvaluateConfig,
    GenerateConfig,
    MlflowConfig,
    NightlyConfig,
    PersonalizeConfig,
    RayConfig,
    ShardsConfig,
    WorkersConfig,
)
from jobs._tiny_stack.config import StackConfig
from pipelines.sources import SOURCES, Source, SourceConfig
from pipelines.stages import STAGES, Stage, StageConfig

_PLAIN: dict[str, type[Config]] = {
    "shards": ShardsConfig,
    "backbone": BackboneConfig,
    "clip": ClipConfig,
    "train": TrainConfig,
    "workers": WorkersConfig,
    "personalize": PersonalizeConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "ray": RayConfig,
    "mlflow": MlflowConfig,
}
_NAMED: dict[str, Registry[Any]] = {"source": SOURCES, "method": METHODS}
_MANY: dict[str, Registry[Any]] = {"stages": STAGES, "metrics": METRICS}
_OPTIONAL = {"shards", "workers", "personalize", "evaluate", "ray", "mlflow"}
_SELDOM: dict[str, type[Config]] = {"stack": StackConfig, "ablations": AblationsConfig, "nightly": NightlyConfig}
"""Sections that most recipes do not have; absent ones are None and enter no hash."""
_PLACES = {"ray", "mlflow", "workers", "nightly"}
"""Sections that say where a run happens and who watches it, not what it computes: they do not enter
:attr:`Recipe.hash`."""


@dataclass(frozen=True)
class Recipe:
    """One resolved, immutable run description."""

    name: str
    seed: int
    source: SourceConfig
    shards: ShardsConfig
    backbone: BackboneConfig
    clip: ClipConfig
    stages: Mapping[str, StageConfig]
    method: MethodConfig
    train: TrainConfig
    workers: WorkersConfig
    personalize: PersonalizeConfig
    generate: GenerateConfig
    metrics: Mapping[str, MetricConfig]
    evaluate: EvaluateConfig
    ray: RayConfig
    mlflow: MlflowConfig
    stack: StackConfig | None = None
    ablations: AblationsConfig | None = None
    nightly: NightlyConfig | None = None

    @property
    def models(self) -> Models:
        """The sections that stages, training and metrics share."""
        return Models(backbone=self.backbone, clip=self.clip)

    def dump(self) -> dict[str, Any]:
        """The whole recipe as plain JSON types."""
        sections = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: _plain(value) for name, value in sections.items() if name not in _SELDOM or value is not None}

    @cached_property
    def hash(self) -> str:
        """16 hex digits over everything that can change a result."""
        return fingerprint({k: v for k, v in self.dump().items() if k not in _PLACES})

    def build_source(self) -> Source:
        """The configured source; touches nothing yet."""
        return SOURCES.get(self.source.name)(self.source)

    def build_stages(self) -> list[Stage]:
        """The configured stages, each after those it reads."""
        built = {name: STAGES.get(name)(config, self.models) for name, config in self.stages.items()}
        return in_order(built)

    def build_method(self) -> Method:
        """The configured method."""
        return METHODS.get(self.method.name)(self.method)


def in_order(stages: Mapping[str, Stage]) -> list[Stage]:
    """Stages sorted so that each comes after those it reads.

    Raises:
        UsageError: a stage reads one that the recipe does not have.
    """
    ordered: dict[str, Stage] = {}

    def place(name: str, needed_by: str) -> None:
        if name not in stages:
            raise UsageError(f"stages.{needed_by} reads the column '{name}': add stages.{name} to the recipe")
        for upstream in stages[name].reads:
            place(upstream, name)
        ordered.setdefault(name, stages[name])

    for name in stages:
        place(name, name)
    return list(ordered.values())


def names() -> list[str]:
    """The shipped recipes."""
    folder = resources.files("jobs") / "recipes"
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def load(which: str, assignments: Sequence[str] = ()) -> Recipe:
    """Resolve a recipe.

    Args:
        which: shipped name, path or URI of a YAML file.
        assignments: ``a.b=c`` overrides, applied last.

    Raises:
        UsageError: no such recipe, an unknown key (the nearest is named), or a value that does not fit.
    """
    tree = _read(which)
    over = apply_overrides({}, assignments)
    tree = _switch(tree, over)
    tree = apply_overrides(tree, assignments)
    _check_sections(tree)
    tree = _with_benchmark(tree)
    sections: dict[str, Any] = {"name": tree.get("name", which), "seed": _seed(tree)}
    for key, cls in _PLAIN.items():
        if key not in tree and key not in _OPTIONAL:
            raise UsageError(f"recipe '{which}' has no section '{key}'")
        sections[key] = validate(cls, tree.get(key) or {}, key)
    for key, cls in _SELDOM.items():
        sections[key] = None if tree.get(key) is None else validate(cls, tree[key], key)
    for key, registry in _NAMED.items():
        sections[key] = _named(tree, key, registry)
    for key, registry in _MANY.items():
        sections[key] = {
            name: validate(registry.get(name).Config, value, f"{key}.{name}")
            for name, value in (tree.get(key) or {}).items()
            if value is not None  # how a recipe that extends another leaves one out
        }
    recipe = Recipe(**sections)
    _refuse_disagreement(recipe)
    _refuse_several_images(recipe)
    return recipe


def _refuse_disagreement(recipe: Recipe) -> None:
    """A stage and the method that reads its column must mean the same by it."""
    for column in recipe.build_method().columns:
        if column not in recipe.stages:
            continue  # made by another recipe, and compared when it is opened
        for name in STAGES.get(column).agrees:
            there, here = getattr(recipe.stages[column], name), getattr(recipe.method, name)
            if there != here:
                raise UsageError(
                    f"stages.{column}.{name} is {_plain(there)!r} and method.{name} is {_plain(here)!r}: the method "
                    "learns what the stage makes, so give both one value"
                )


def _refuse_several_images(recipe: Recipe) -> None:
    """A method that learns from one image must not be given more, of which it would use none."""
    images = recipe.personalize.images
    if images == 1 or METHODS.get(recipe.method.name).several_images:
        return
    able = [name for name in METHODS.names() if METHODS.get(name).several_images]
    raise UsageError(
        f"personalize.images is {images!r}, and method '{recipe.method.name}' learns an identity from one image; set "
        f"personalize.images=1, or take a method that learns from several: {', '.join(able)}"
    )


def _read(which: str) -> dict[str, Any]:
    if which in names():
        text, where = (resources.files("jobs") / "recipes" / f"{which}.yaml").read_text(), f"recipe '{which}'"
    else:
        text, where = _read_uri(which), which
    tree = parse_yaml(text, where)
    parent = tree.pop("extends", None)
    return merge(_switch(_read(parent), tree), tree) if parent else tree


def _read_uri(uri: str) -> str:
    if "/" not in uri and not uri.endswith((".yaml", ".yml")):
        raise UsageError(f"no recipe is called '{uri}'{nearest(uri, names())}")
    folder, _, name = uri.rpartition("/")
    try:
        return Store(folder or ".").read(name).decode()
    except FileNotFoundError as error:
        raise UsageError(f"no recipe file at '{uri}'; give a path, a URI, or one of {', '.join(names())}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the recipe file '{uri}' is not text: {error}") from error


def _switch(tree: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """When ``over`` names another source or method, keep only those of the recipe's fields that the new one has. A
    section inside is the old one's own, whatever it is called, and is not kept."""
    out = dict(tree)
    for key, registry in _NAMED.items():
        old, new = out.get(key) or {}, over.get(key) or {}
        name = new.get("name", old.get("name")) if isinstance(new, Mapping) else None
        if key == "source" and name and "name" not in new and new.get("path") and not SOURCES.get(name).takes_path:
            name = "image_folder"  # a folder given to a source that generates its data is a folder of images
        if name and name != old.get("name"):
            known = registry.get(str(name)).Config.model_fields
            kept = {k: v for k, v in old.items() if k in known and not isinstance(v, Mapping)}
            out[key] = kept | {"name": name}
    return out


def _with_benchmark(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``benchmark`` is another way to say some of ``personalize``, so a resolved recipe has it there."""
    given = validate(BenchmarkConfig, tree.get("benchmark") or {}, "benchmark").dump()
    over = {field: value for field, value in given.items() if value is not None}
    return merge(tree, {"personalize": over}) if over else dict(tree)


def _check_sections(tree: Mapping[str, Any]) -> None:
    known = {"name", "seed", "benchmark", *_PLAIN, *_SELDOM, *_NAMED, *_MANY}
    for key, value in tree.items():
        if key not in known:
            raise UsageError(f"unknown key '{key}' in the recipe{nearest(key, known)}")
        if key not in ("name", "seed") and value is not None and not isinstance(value, Mapping):
            raise UsageError(f"{key}: {value!r} does not fit: this is a section, a mapping of its own keys")


def _seed(tree: Mapping[str, Any]) -> int:
    seed = tree.get("seed", 0)
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UsageError(f"seed: {seed!r} does not fit: it is a whole number from 0 up")
    return seed


def _named(tree: Mapping[str, Any], key: str, registry: Registry[Any]) -> Any:
    section = tree.get(key) or {}
    name = section.get("name")
    if not isinstance(name, str):
        raise UsageError(f"{key}.name: {name!r} does not fit; choose from {', '.join(registry.names())}")
    return validate(registry.get(name).Config, section, key)


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.dump()
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value
