"""What is logged, as plain values that can wait in a file and be sent later, or twice."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

from e4t_core.errors import DataError

Kind = Literal["begin", "tags", "metrics", "file", "inputs", "end"]
SCHEMA_VERSION = 1


def now_ms() -> int:
    """MLflow's clock: milliseconds since 1970."""
    return int(time.time() * 1000)


@dataclass(frozen=True)
class RunName:
    """What names a run, whether or not a server has it yet.

    Attributes:
        key: ours, unique; the run carries it as a tag.
        name: shown to people.
        experiment: name of the experiment.
        started: milliseconds since 1970.
        parent: the run that this one is shown under.
        tags: further tags that it is created with.
        id: MLflow's id, for runs that are known by nothing else.
    """

    name: str
    experiment: str
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: int = field(default_factory=now_ms)
    parent: RunName | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> RunName:
        """From what :func:`dataclasses.asdict` gave."""
        parent = fields.get("parent")
        return cls(**{**fields, "parent": cls.of(parent) if parent else None})


@dataclass(frozen=True)
class Event:
    """One thing to log to one run. It names the run in full, so it needs no other event before it.

    Attributes:
        run: which.
        kind: ``begin`` (params of a new run), ``tags``, ``metrics``, ``file`` (an artifact), ``inputs`` (datasets) or
            ``end``.
        body: JSON values, by kind.
        writer: who wrote it. A step of a metric that one writer has logged, no other logs again.
        uri: the tracking store that it was meant for, without password.
    """

    run: RunName
    kind: Kind
    body: Mapping[str, Any]
    writer: str = ""
    uri: str = ""

    def to_json(self) -> bytes:
        """One line of JSON."""
        return (json.dumps({"schema": SCHEMA_VERSION, **asdict(self)}, separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Event:
        """Read an event.

        Raises:
            DataError: it is none, or a newer e4t wrote it.
        """
        try:
            fields = json.loads(data)
            schema = fields.pop("schema")
            if schema > SCHEMA_VERSION:
                raise DataError(
                    f"{where} has event schema {schema}; this e4t reads up to {SCHEMA_VERSION}: upgrade e4t"
                )
            if fields["kind"] not in get_args(Kind):
                raise ValueError(f"it is of the kind {fields['kind']!r}")
            return cls(**{**fields, "run": RunName.of(fields["run"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where} is no event that waits for MLflow ({error}); delete it to give it up") from error


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested recipe as dotted MLflow params; sequences of plain values stay one param."""
    out: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            out |= flatten(value, f"{name}.")
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            out |= flatten({str(i): item for i, item in enumerate(value)}, f"{name}.")
        else:
            out[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return out


def as_params(tree: Mapping[str, Any]) -> dict[str, str]:
    """:func:`flatten`, with long values split over ``name``, ``name.part2``...: MLflow cuts them silently, and here
    nothing of a recipe is lost."""
    return {name: part for key, value in flatten(tree).items() for name, part in _split(key, value)}


def metric_name(name: str) -> str:
    """``name`` with what MLflow does not allow replaced."""
    return re.sub(r"[^\w./ -]", "_", name)


def _split(key: str, value: str) -> Iterator[tuple[str, str]]:
    for number, at in enumerate(range(0, max(len(value), 1), MAX_PARAM_VAL_LENGTH), start=1):
        yield (key if number == 1 else f"{key}.part{number}"), value[at : at + MAX_PARAM_VAL_LENGTH]
