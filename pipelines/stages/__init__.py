"""Processing steps, one file each; a stage is a column of the shard store."""

from e4t_core.registry import Registry
from pipelines.stages.base import Bad, Measured, Models, Resources, Stage, StageConfig

STAGES: Registry[Stage] = Registry("stage", "pipelines.stages", Stage)

__all__ = ["STAGES", "Bad", "Measured", "Models", "Resources", "Stage", "StageConfig"]
