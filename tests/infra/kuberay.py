"""The part of KubeRay's own kinds that ``infra/`` uses, with what its operator refuses.

Field names, types and rules are those of the ``ray.io/v1`` reference of KubeRay 1.6; a field that is not here is taken
for a misspelt one. Pod templates are Kubernetes' own and are checked against Kubernetes' schema.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=0)]
Label = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)]
"""Names of pods and services are made of it, so it is shorter than Kubernetes would allow."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Metadata(_Strict):
    name: Label
    namespace: str
    labels: dict[str, str] = {}


class AuthOptions(_Strict):
    mode: Literal["disabled", "token"]


class AutoscalerOptions(_Strict):
    idleTimeoutSeconds: Count


class HeadGroup(_Strict):
    rayStartParams: dict[str, str]
    template: dict[str, Any]


class WorkerGroup(HeadGroup):
    groupName: Label
    replicas: Count
    minReplicas: Count
    maxReplicas: Count

    @model_validator(mode="after")
    def _ordered(self) -> WorkerGroup:
        assert self.minReplicas <= self.replicas <= self.maxReplicas
        return self


class ClusterSpec(_Strict):
    rayVersion: str
    authOptions: AuthOptions
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class JobSpec(_Strict):
    entrypoint: str
    submissionMode: Literal["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: Count
    backoffLimit: Count
    suspend: bool = False
    rayClusterSpec: ClusterSpec

    @model_validator(mode="after")
    def _accepted(self) -> JobSpec:
        assert self.shutdownAfterJobFinishes or not (self.ttlSecondsAfterFinished or self.suspend)
        assert self.submissionMode != "InteractiveMode" or not self.backoffLimit
        return self


class RayCluster(_Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayJob(_Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


KINDS: dict[str, type[RayCluster] | type[RayJob]] = {"RayCluster": RayCluster, "RayJob": RayJob}
