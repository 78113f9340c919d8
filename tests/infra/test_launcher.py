"""``infra/aws.yaml`` through Ray's launcher: its validator, then its provider against an EC2 on loopback."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from ray.autoscaler._private.providers import _get_node_provider_cls
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

from tests.support import infra


@pytest.fixture
def config() -> dict[str, Any]:
    """The file with Ray's defaults filled in, as its validator accepts it."""
    filled: dict[str, Any] = prepare_config(yaml.safe_load((infra.INFRA / "aws.yaml").read_text()))
    validate_config(filled)
    return filled


def test_every_node_starts_the_pinned_image_by_commands_that_ray_has(config: dict[str, Any]) -> None:
    assert config["docker"]["image"].endswith(f"/e4t:{metadata.version('e4t')}")
    for kind in ("head_start_ray_commands", "worker_start_ray_commands"):
        stop, begin = (shlex.split(command) for command in config[kind])
        assert (stop, begin[:2]) == (["ray", "stop"], ["ray", "start"])
        start.make_context("start", begin[2:])  # refuses a flag that there is not
    assert not any(config[kind] for kind in ("setup_commands", "head_setup_commands", "worker_setup_commands"))


def test_the_launcher_asks_for_what_kubernetes_asks_for(config: dict[str, Any]) -> None:
    (cluster,) = infra.documents("kubernetes/nodes/raycluster.yaml")
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    types = {name: kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]}
    assert {n: (t["min_workers"], t["max_workers"]) for n, t in types.items()} == {
        n: (g["minReplicas"], g["maxReplicas"]) for n, g in groups.items()
    }
    assert config["max_workers"] == sum(kind["max_workers"] for kind in types.values())


def test_its_machines_exist_and_start(
    config: dict[str, Any], moto_s3: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where the launcher keeps the key of its machines
    (tmp_path / ".ssh").mkdir()
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:"), "this must never reach AWS"
    boto3.client("iam").create_instance_profile(InstanceProfileName="e4t")
    provider = _get_node_provider_cls(config["provider"])
    made = provider.bootstrap_config(provider.fillout_available_node_types_resources(config))
    has = {name: kind["resources"] for name, kind in made["available_node_types"].items()}
    assert (has["head"]["CPU"], has["cpu"]["CPU"], has["gpu"]["CPU"], has["gpu"]["GPU"]) == (0, 16, 16, 1)
    assert has["gpu"]["accelerator_type:H100"] == 1
    nodes = provider(made["provider"], made["cluster_name"])
    for name in ("head", "cpu", "gpu"):
        machine = made["available_node_types"][name]["node_config"]
        assert len(nodes.create_node(machine, {"ray-node-name": name}, 1)) == 1
