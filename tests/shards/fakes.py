"""Sources and stages small enough to reason about: bytes in, bytes out, and every way to go wrong."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from e4t_core.backbones.config import BackboneConfig, ClipConfig, Models
from e4t_core.schema import Sample
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem
from pipelines.stages.base import Bad, Resources, Stage, StageConfig

MODELS = Models(backbone=BackboneConfig(path="none", resolution=8), clip=ClipConfig(path="none"))


Result = Mapping[str, bytes] | Bad


class FolderSource(Source):
    """A folder of ``*.txt`` files; ``person-3.txt`` has the identity ``person``."""

    name: ClassVar[str] = "folder"
    Config: ClassVar[type[SourceConfig]] = SourceConfig

    def items(self, limit: int | None = None) -> Iterator[SourceItem]:
        for i, path in enumerate(sorted(Path(self.config.path).rglob("*.txt"), reverse=True)):
            if limit is not None and i >= limit:
                return
            name = path.relative_to(self.config.path).as_posix()
            facts = path.stat()
            labels = {"identity": path.name.split("-")[0]} if "-" in path.name else {}
            yield SourceItem(name, str(path), f"{facts.st_size}-{facts.st_mtime_ns}", labels)

    def read(self, item: SourceItem) -> RawSample:
        return RawSample(Path(item.uri).read_bytes())


def folder_source(path: Path) -> FolderSource:
    return FolderSource(SourceConfig(name="folder", path=str(path)))


class FakeConfig(StageConfig):
    """``text`` goes into the output; ``seconds`` passes per sample."""

    text: str = ""
    seconds: float = 0.0


class FakeStage(Stage):
    """Keeps its weights' hash in the config's ``text`` unless a test says otherwise."""

    version: ClassVar[int] = 1
    Config: ClassVar[type[StageConfig]] = FakeConfig
    config: FakeConfig

    def settings(self) -> dict[str, object]:
        return {"text": self.config.text}

    def __call__(self, batch: Sequence[Sample]) -> list[Result]:
        time.sleep(self.config.seconds * len(batch))
        return [self.one(sample) for sample in batch]

    def one(self, sample: Sample) -> Result:
        raise AssertionError("each fake defines it")


class Read(FakeStage):
    """Reads the source. Content decides: ``bad`` is quarantined, ``crash`` ends the process, ``bug`` raises."""

    name: ClassVar[str] = "read"
    reads: ClassVar[tuple[str, ...]] = ()
    writes: ClassVar[tuple[str, ...]] = ("body.txt", "note.json")

    def one(self, sample: Sample) -> Result:
        data = sample["__source__"].read(sample["__item__"]).image
        if data.startswith(b"bad"):
            return Bad("bad_text", f"it starts with {data[:200]!r}; other text is right")
        if data == b"crash":
            os._exit(7)
        if data == b"segfault":
            os.abort()
        if data == b"bug":
            raise ZeroDivisionError("a bug in the stage")
        return {"body.txt": data, "note.json": b"{}"}


class Upper(FakeStage):
    """Upper-cases ``body.txt``."""

    name: ClassVar[str] = "upper"
    reads: ClassVar[tuple[str, ...]] = ("read",)
    writes: ClassVar[tuple[str, ...]] = ("upper.txt",)

    def one(self, sample: Sample) -> Result:
        if b"no upper" in sample["body.txt"]:
            return Bad("no_upper", "it asks not to be")
        return {"upper.txt": sample["body.txt"].upper() + self.config.text.encode()}


class Join(FakeStage):
    """Needs two columns."""

    name: ClassVar[str] = "join"
    reads: ClassVar[tuple[str, ...]] = ("read", "upper")
    writes: ClassVar[tuple[str, ...]] = ("join.txt",)

    def one(self, sample: Sample) -> Result:
        return {"join.txt": sample["body.txt"] + b"|" + sample["upper.txt"]}


class Apart(Join):
    """Says that it has weights, so it does not share the workers of the stages before it."""

    name: ClassVar[str] = "join"

    def weights(self) -> str:
        return "w"


def make(cls: type[FakeStage], batch_size: int = 2, actors: int = 1, **fields: object) -> FakeStage:
    resources = Resources(batch_size=batch_size, actors=actors)
    return cls(FakeConfig(resources=resources, **fields), MODELS)  # type: ignore[arg-type]


def chain(**fields: object) -> list[Stage]:
    return [make(Read, **fields), make(Upper, **fields), make(Join, **fields)]


def apart(**fields: object) -> list[Stage]:
    """The same columns from two kinds of workers, two of each."""
    return [make(cls, actors=2, **fields) for cls in (Read, Upper, Apart)]


CHAINS = {"chain": chain, "apart": apart}


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def people(folder: Path, count: int, start: int = 0) -> None:
    """``count`` files of ``count / 3`` people."""
    write_texts(folder, {f"p{i // 3:02d}-{i:03d}.txt": f"text {i}" for i in range(start, start + count)})
