"""Where samples come from, one file per dataset."""

from e4t_core.registry import Registry
from pipelines.sources.base import RawSample, Source, SourceConfig, SourceItem

SOURCES: Registry[Source] = Registry("source", "pipelines.sources", Source)

__all__ = ["SOURCES", "RawSample", "Source", "SourceConfig", "SourceItem"]
