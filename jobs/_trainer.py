"""Ray Train's trainer without the two actors of its own that pre-training has no use for."""

from __future__ import annotations

from typing import Any

from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback


class LeanTrainer(TorchTrainer):
    """A process each less to start, and to take turns with a worker that has the machine's last core.

    Ray Train has no switch for them: the manager of ``datasets``, of which none are passed (workers read the shards
    themselves), and the one that frees the workers' room if the controller is killed while its driver lives on. Here
    the driver ends with its controller, and Ray frees what a driver held.
    """

    def _create_default_callbacks(self) -> list[Any]:
        useless = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, useless)]
