"""The files for Kubernetes, as far as they can be checked without one.

KubeRay's own schema is in no package. What is KubeRay's is held to the fields below, which are the
documented ones that the file uses; pods and policies are held to Kubernetes' schemas.
"""

from __future__ import annotations

import copy
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml
from packaging.version import Version
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from deployments.app import build_app
from deployments.config.app_config import AppConfig
from deployments.http.auth.network import refuse_exposed
from deployments.models import build_models
from runtime.config.access import AccessConfig
from runtime.errors import ConfigError
from tests.support.paths import ROOT

PATH: Final = ROOT / "deployments/clusters/rayservice.yaml"
SOURCE: Final = ROOT / "deployments/recipes/gpu_7b_trio.yaml"
KUBERNETES: Final = "1.33"


def exactly(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these fields and no other."""
    return {
        "type": "object",
        "properties": required | optional,
        "required": list(required),
        "additionalProperties": False,
    }


TEXT: Final = {"type": "string", "minLength": 1}
COUNT: Final = {"type": "integer", "minimum": 0}
POD: Final = {"type": "object"}
"""A pod template: checked by Kubernetes' schema instead."""
PARAMETERS: Final = {"type": "object", "additionalProperties": {"type": "string"}}
"""Of ``ray start``: KubeRay takes texts only."""
CLUSTER: Final = exactly(
    {
        "rayVersion": TEXT,
        "headGroupSpec": exactly({"template": POD}, rayStartParams=PARAMETERS),
        "workerGroupSpecs": {
            "type": "array",
            "minItems": 1,
            "items": exactly(
                {"groupName": TEXT, "template": POD, "minReplicas": COUNT, "maxReplicas": COUNT},
                replicas=COUNT,
                rayStartParams=PARAMETERS,
            ),
        },
        "authOptions": exactly({"mode": {"const": "token"}}),
    },
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=exactly({}, version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT),
)
RAY_SERVICE: Final = exactly(
    {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayService"},
        "metadata": exactly({"name": TEXT}),
        "spec": exactly({"serveConfigV2": TEXT, "rayClusterConfig": CLUSTER}),
    }
)


def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    service, policy = yaml.safe_load_all(PATH.read_text())
    return service, policy


def pods(service: dict[str, Any]) -> list[dict[str, Any]]:
    """The pod templates as resources of their own."""
    cluster = service["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [
        {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "pod"},
            "template": group["template"],
        }
        for group in groups
    ]


def test_the_service_has_the_documented_fields_and_no_other() -> None:
    service, _ = documents()
    jsonschema.validate(service, RAY_SERVICE)
    for path in (("spec",), ("spec", "rayClusterConfig", "headGroupSpec")):
        wrong = copy.deepcopy(service)
        inside = wrong
        for key in path:
            inside = inside[key]
        inside["rayStartParms"] = {}
        with pytest.raises(jsonschema.ValidationError, match="rayStartParms"):
            jsonschema.validate(wrong, RAY_SERVICE)


def test_kubernetes_takes_the_pods_and_the_policy() -> None:
    service, policy = documents()
    for resource in (*pods(service), policy):
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    wrong = copy.deepcopy(pods(service)[0])
    wrong["template"]["spec"]["containers"][0]["volumeMount"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="volumeMount"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_embedded_config_is_that_of_the_three_models_but_for_host_and_keys() -> None:
    service, _ = documents()
    embedded = yaml.safe_load(service["spec"]["serveConfigV2"])
    source = yaml.safe_load(SOURCE.read_text())
    assert source["http_options"].pop("host") == "127.0.0.1"
    assert embedded["http_options"].pop("host") == "0.0.0.0", "Kubernetes' service is outside it"
    assert "gateway" not in source["applications"][0]["args"]
    access = embedded["applications"][0]["args"].pop("gateway")["access"]
    assert embedded == source
    [head] = service["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert access == {"keys_env": head["env"][0]["name"]}, "the gateway is on the head"


def test_the_embedded_config_lets_nobody_in_without_a_key() -> None:
    service, _ = documents()
    embedded = yaml.safe_load(service["spec"]["serveConfigV2"])
    config = AppConfig.model_validate(embedded["applications"][0]["args"])
    refuse_exposed(config.gateway.access, embedded["http_options"]["host"])
    with pytest.raises(ConfigError):
        refuse_exposed(AccessConfig(), embedded["http_options"]["host"])


def test_serve_and_orchestrion_take_the_embedded_config() -> None:
    service, _ = documents()
    embedded = yaml.safe_load(service["spec"]["serveConfigV2"])
    front, models = ServeDeploySchema.model_validate(embedded).applications
    config = AppConfig.model_validate(front.args)
    assert config.models_app == models.name
    assert AppConfig.model_validate(models.args).members == config.members
    # As Serve calls them: with what stands in the file.
    assert isinstance(build_app(front.args), Application)
    assert isinstance(build_models(models.args), Application)


def test_the_workers_hold_the_models() -> None:
    service, _ = documents()
    cluster = service["spec"]["rayClusterConfig"]
    front = yaml.safe_load(service["spec"]["serveConfigV2"])["applications"][0]
    members = AppConfig.model_validate(front["args"]).members.values()
    [group] = cluster["workerGroupSpecs"]
    [worker] = group["template"]["spec"]["containers"]
    limits = worker["resources"]["limits"]
    assert all(member.replica.num_gpus == int(limits["nvidia.com/gpu"]) for member in members)
    assert all(member.replica.num_cpus <= int(limits["cpu"]) for member in members)
    assert len(members) <= group["minReplicas"] <= group["maxReplicas"]
    assert worker["resources"]["requests"] == limits
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_all_pods_run_one_image_with_the_ray_that_is_named() -> None:
    service, _ = documents()
    images = {c["image"] for p in pods(service) for c in p["template"]["spec"]["containers"]}
    assert len(images) == 1
    result = service["spec"]["rayClusterConfig"]["rayVersion"]
    base = (PATH.parent / "Dockerfile").read_text()
    assert f"FROM rayproject/ray:{Version(result)}-" in base


def test_nobody_reaches_the_endpoint_but_pods_that_are_named() -> None:
    _, policy = documents()
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    for rule in policy["spec"]["ingress"]:
        assert rule["from"], "a rule without senders lets in everybody"
        for sender in rule["from"]:
            assert sender["podSelector"]["matchLabels"]
