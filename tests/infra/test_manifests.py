"""``infra/kubernetes`` as kubectl renders it: Kubernetes' schemas, KubeRay's rules, and how Ray itself reads it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import metadata
from typing import Any

import kubernetes_validate
import pytest
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr as ray_reads
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for

from jobs.__main__ import parser
from jobs._job import Job
from jobs._recipe import Recipe
from tests.infra import kuberay
from tests.support import infra

FOLDERS = ("cluster", "jobs", "tracking")
KUBERNETES = "1.34"


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return infra.rendered(request.param)


def pod_templates(tree: Any) -> Iterator[dict[str, Any]]:
    """Every pod template at any depth."""
    if isinstance(tree, dict):
        if "containers" in tree.get("spec", {}):
            yield tree
        for value in tree.values():
            yield from pod_templates(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from pod_templates(value)


def containers(tree: Any) -> Iterator[dict[str, Any]]:
    for template in pod_templates(tree):
        yield from template["spec"].get("initContainers", [])
        yield from template["spec"]["containers"]


def test_schemas(folder: list[dict[str, Any]]) -> None:
    for doc in folder:
        if doc["apiVersion"] == "ray.io/v1":
            kuberay.KINDS[doc["kind"]].model_validate(doc)
            for template in pod_templates(doc):
                pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
                kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        else:
            kubernetes_validate.validate(doc, KUBERNETES, strict=True)


def test_all_of_it_is_in_one_namespace(folder: list[dict[str, Any]]) -> None:
    assert {doc["metadata"]["namespace"] for doc in folder} == {"e4t"}


def test_what_there_is() -> None:
    assert set(infra.of_kind(infra.rendered("cluster"), "RayCluster")) == {"e4t"}
    assert set(infra.of_kind(infra.rendered("cluster"), "CronJob")) == set(infra.schedule_words())
    assert set(infra.of_kind(infra.rendered("jobs"), "RayJob")) == set(infra.rayjob_words())
    assert not infra.of_kind(infra.rendered("jobs"), "RayCluster"), "jobs/ must not touch the standing cluster"


def test_every_rayjob_goes_on_and_leaves_nothing() -> None:
    standing = infra.of_kind(infra.rendered("cluster"), "RayCluster")["e4t"]["spec"]
    for name, doc in infra.of_kind(infra.rendered("jobs"), "RayJob").items():
        assert doc["metadata"]["labels"] == {"job": name.removeprefix("e4t-")}, "how one of them is started"
        assert doc["spec"]["backoffLimit"] > 0
        assert doc["spec"]["shutdownAfterJobFinishes"]
        assert doc["spec"]["rayClusterSpec"] == standing


def test_versions_are_pinned_to_the_environment(folder: list[dict[str, Any]]) -> None:
    for doc in folder:
        for found in containers(doc):
            name, _, tag = found["image"].rpartition(":")
            assert name, f"{found['image']} names no version"
            if name == "e4t":
                assert tag == metadata.version("e4t")
        spec = doc.get("spec", {})
        for cluster in [spec] if doc["kind"] == "RayCluster" else [spec.get("rayClusterSpec", {})]:
            assert cluster.get("rayVersion", metadata.version("ray")) == metadata.version("ray")


def test_secrets_are_references_and_pods_have_no_privileges(folder: list[dict[str, Any]]) -> None:
    assert not infra.of_kind(folder, "Secret")
    for doc in folder:
        for data in doc.get("data", {}):
            assert not any(word in data for word in ("KEY", "SECRET", "TOKEN", "PASSWORD"))
        for template in pod_templates(doc):
            spec = template["spec"]
            assert spec["securityContext"]["runAsNonRoot"]
            assert spec["enableServiceLinks"] is False
            for found in containers({"template": template}):
                assert found["securityContext"]["allowPrivilegeEscalation"] is False
                assert found["resources"]["requests"].keys() >= {"cpu", "memory"}
                assert found["resources"]["limits"]["memory"] == found["resources"]["requests"]["memory"] or (
                    found["name"] == "submit"
                )
                for variable in found.get("env", []):
                    if any(word in variable["name"] for word in ("KEY", "SECRET", "TOKEN", "PASSWORD")):
                        assert "secretKeyRef" in variable["valueFrom"]


def test_a_schedule_calls_the_standing_cluster_by_its_name_and_token() -> None:
    (cluster,) = infra.of_kind(infra.rendered("cluster"), "RayCluster")
    for doc in infra.of_kind(infra.rendered("cluster"), "CronJob").values():
        variables = {variable["name"]: variable for variable in infra.container(doc)["env"]}
        assert variables["RAY_ADDRESS"]["value"] == f"http://{cluster}-head-svc:8265"
        assert variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": cluster, "key": "auth_token"}
        assert doc["spec"]["concurrencyPolicy"] == "Forbid"


# --- the nodes are those that the recipes ask for


def demands(recipe: Recipe, command: str) -> list[dict[str, float]]:
    """What Ray is asked for: one entry a worker."""
    if command in ("preprocess", "targets"):
        asked = [(stage.resources.actors, stage.resources) for stage in recipe.stages.values()]
    elif command == "pretrain":
        asked = [(recipe.workers.num_workers, recipe.workers)]
    else:
        section = getattr(recipe, command)
        asked = [(section.actors, section)]
    each = [(count, {"CPU": of.cpus} | ({"GPU": of.gpus} if of.gpus else {})) for count, of in asked]
    return [demand for count, demand in each for _ in range(count)]


@pytest.fixture(scope="module")
def nodes() -> dict[str, Any]:
    """Node types as Ray's autoscaler reads them in the cluster's manifest; it validates what it read."""
    return dict(ray_reads(infra.of_kind(infra.rendered("cluster"), "RayCluster")["e4t"])["available_node_types"])


def test_ray_reads_a_head_without_work_and_workers_from_none(nodes: dict[str, Any]) -> None:
    assert nodes["headgroup"]["resources"]["CPU"] == 0
    assert nodes["gpu"]["resources"]["GPU"] == 1
    assert "GPU" not in nodes["cpu"]["resources"]
    assert all(nodes[name]["min_workers"] == 0 for name in ("cpu", "gpu"))


@pytest.mark.parametrize(
    ("job", "sets", "kinds"),
    [
        ("e4t-preprocess", ["stages.clip=null", "stages.latent=null"], {"cpu"}),  # ingest, mask and caption alone
        ("e4t-preprocess", [], {"gpu"}),  # on a machine with a GPU there are cores left for them
        ("e4t-targets", [], {"gpu"}),
        ("e4t-pretrain", [], {"gpu"}),
        ("e4t-people", [], {"gpu"}),
        ("e4t-personalize", [], {"gpu"}),
        ("e4t-generate", [], {"gpu"}),
        ("e4t-evaluate", [], {"gpu"}),
    ],
)
def test_the_autoscaler_finds_room_for_every_worker(
    nodes: dict[str, Any], job: str, sets: list[str], kinds: set[str]
) -> None:
    words = infra.rayjob_words()[job] + [f"--set={text}" for text in sets]
    asked = demands(Job(parser(words[0]).parse_args(words[1:])).recipe, words[0])
    asked.sort(key=lambda demand: (demand.get("GPU", 0), demand["CPU"]), reverse=True)
    types = {name: nodes[name] for name in ("cpu", "gpu")}
    scorer = partial(_default_utilization_scorer, node_availability_summary=NodeAvailabilitySummary({}))
    started, left = get_nodes_for(types, {}, "headgroup", 100, asked, scorer)
    assert not left, f"no node of infra/kubernetes/nodes holds {left}"
    assert set(started) == kinds
