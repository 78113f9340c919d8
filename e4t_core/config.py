"""Recipes: YAML -> ``--set`` overrides -> frozen pydantic models; a misspelt key names the right one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, TypeVar, get_args

import pydantic
import yaml

from e4t_core.errors import UsageError, nearest


class Config(pydantic.BaseModel):
    """Base of every recipe section: immutable, closed to unknown keys, no silent type changes."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came after there were recipes without them. At their defaults they enter no dump, so that hashes,
    fingerprints and checkpoints from before stay good."""

    @pydantic.model_serializer(mode="wrap")
    def _without_later(self, whole: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = {name: type(self).model_fields[name].default for name in self.later}
        found: dict[str, Any] = whole(self)
        return {k: v for k, v in found.items() if k not in defaults or getattr(self, k) != defaults[k]}

    def dump(self) -> dict[str, Any]:
        """Plain JSON types, ready for :func:`e4t_core.record.fingerprint`."""
        return self.model_dump(mode="json")


C = TypeVar("C", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads ``1e-6`` as text; learning rates are written that way, so floats follow YAML 1.2 here."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Parse one YAML mapping.

    Raises:
        UsageError: not YAML, or not a mapping.
    """
    try:
        tree = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{where} holds a {type(tree).__name__}; a recipe is a mapping of sections")
    return tree


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``; mappings merge, everything else replaces."""
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def apply_overrides(tree: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """Apply ``a.b=c`` assignments; values are YAML scalars or flow collections (``[1, 2]``).

    Sections that hold changes to a recipe have names with dots (``people: {source.identities: 20}``). Where a name's
    neighbours are written so, it is written so too: ``people.source.seed=1`` adds ``source.seed`` to them.

    Raises:
        UsageError: no ``=``, an empty name, or a path that runs through a plain value.
    """
    out = dict(tree)
    for text in assignments:
        path, sign, value = text.partition("=")
        names = path.strip().split(".")
        if not sign or not all(names):
            raise UsageError(f"--set {text!r}: write it as name=value, e.g. --set source.limit=100")
        node = out
        for depth, name in enumerate(names[:-1]):
            if name not in node and any(known.startswith(f"{name}.") for known in node):
                names = [*names[:depth], ".".join(names[depth:])]
                break
            child = node.get(name)
            if child is not None and not isinstance(child, Mapping):
                raise UsageError(f"--set {text!r}: '{name}' is the value {child!r}, not a section")
            node[name] = dict(child or {})
            node = node[name]
        node[names[-1]] = _scalar(value, text)
    return out


def _scalar(value: str, text: str) -> Any:
    try:
        return yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {text!r}: the value is not YAML: {error}") from error


def validate(cls: type[C], tree: Mapping[str, Any], where: str) -> C:
    """Build ``cls`` from ``tree``.

    Raises:
        UsageError: every problem on its own line, with its dotted path, its value and what is right.
    """
    try:
        # JSON mode: lists may fill tuples, and nothing else is converted.
        return cls.model_validate_json(json.dumps(tree))
    except pydantic.ValidationError as error:
        lines = [_explain(cls, problem, where) for problem in error.errors()]
        raise UsageError("\n".join(lines)) from error


def _explain(cls: type[pydantic.BaseModel], problem: Any, where: str) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    name = f"{where}.{path}" if where and path else where or path
    if problem["type"] == "extra_forbidden":
        fields = _fields_at(cls, problem["loc"][:-1])
        return f"{name}: unknown key '{problem['loc'][-1]}'{nearest(str(problem['loc'][-1]), fields)}"
    if problem["type"] == "missing":
        return f"{name}: required, but not given"
    return f"{name}: {problem['input']!r} does not fit: {problem['msg']}"


def _fields_at(cls: type[pydantic.BaseModel], path: tuple[Any, ...]) -> list[str]:
    model: Any = cls
    for part in path:
        info = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        # a mapping's keys are free: its own type stands for each of its values
        model = _section(getattr(info, "annotation", None)) if info else _value_model(model)
    return list(getattr(model, "model_fields", {}))


def _section(annotation: Any) -> Any:
    """The model of ``Model | None``; what is no optional section stays as it is."""
    among = get_args(annotation)
    return next((a for a in among if type(None) in among and hasattr(a, "model_fields")), annotation)


def _value_model(annotation: Any) -> Any:
    """The model among the type arguments of ``dict[str, Model | None]``, at any depth."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for a in get_args(annotation) if (found := _value_model(a)) is not None), None)
