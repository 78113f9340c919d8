"""Ray Train's trainer without the actors of its own that pre-training has no use for."""

from __future__ import annotations

from typing import Any

from ray.train import Result
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy


class LeanTrainer(TorchTrainer):
    """A process each less to start, and to take turns with a worker that has the machine's last core.

    Ray Train has no switch for them: the manager of ``datasets``, of which none are passed (workers read the shards
    themselves), and the one that frees the workers' room if the controller is killed while its driver lives on. Here
    the driver ends with its controller, and Ray frees what a driver held. On a Ray that cannot grow (``grows``), the
    one that would ask an autoscaler for nodes is left out too.
    """

    def __init__(self, *args: Any, grows: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.grows = grows

    def _create_default_callbacks(self) -> list[Any]:
        useless = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, useless)]

    def _initialize_and_run_controller(self, **parts: Any) -> Result:
        if not self.grows:
            parts["scaling_policy"] = _AsksForNoNodes(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)


class _AsksForNoNodes(FixedScalingPolicy):
    """As many workers as configured, without the coordinator that an autoscaler is asked through."""

    def after_controller_start(self, train_run_context: TrainRunContext) -> None: ...

    def _maybe_send_resource_request(self) -> None: ...
