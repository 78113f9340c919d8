"""Pre-training: the plain loop, its state, and how trained things are written and read."""

from e4t_core.training.artifacts import load_adapter, load_module, save_adapter, save_module
from e4t_core.training.config import TrainConfig
from e4t_core.training.loop import Batches, TrainingDiverged, noise_seed, train
from e4t_core.training.state import TrainState, load_state, save_state

__all__ = [
    "Batches",
    "TrainConfig",
    "TrainState",
    "TrainingDiverged",
    "load_adapter",
    "load_module",
    "load_state",
    "noise_seed",
    "save_adapter",
    "save_module",
    "save_state",
    "train",
]
