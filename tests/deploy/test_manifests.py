"""The manifests of `configs/deploy`, against the schemas of KubeRay and against each other."""

import copy
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from actors.jobs.package import pack
from forecast.config.loader import load_config

DEPLOY = Path(__file__).parents[2] / "configs" / "deploy"
CRDS = os.environ.get("FORECAST_KUBERAY_CRDS")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the schemas have 56,000 lines
MANIFESTS = sorted(path.name for path in DEPLOY.glob("*.yaml"))
KUBERAY = {"RayCluster", "RayJob", "RayCronJob"}

needs_crds = pytest.mark.skipif(
    CRDS is None, reason="FORECAST_KUBERAY_CRDS names no folder with the schemas of KubeRay"
)

# Of Kubernetes itself there is no schema here; a pod's is part of KubeRay's.
CRON_SPEC = {
    "schedule": str,
    "timeZone": str,
    "concurrencyPolicy": str,
    "startingDeadlineSeconds": int,
    "successfulJobsHistoryLimit": int,
    "failedJobsHistoryLimit": int,
    "suspend": bool,
    "jobTemplate": dict,
}
JOB_SPEC = {
    "backoffLimit": int,
    "activeDeadlineSeconds": int,
    "ttlSecondsAfterFinished": int,
    "completions": int,
    "parallelism": int,
    "podFailurePolicy": dict,
    "template": dict,
}
FAILURE_RULE = {"action": str, "onExitCodes": dict, "onPodConditions": list}
EXIT_CODES = {"containerName": str, "operator": str, "values": list}
METADATA = {"name", "namespace", "labels", "annotations"}


def documents() -> dict[str, dict[str, Any]]:
    """By file; one manifest each."""
    found = {}
    for name in MANIFESTS:
        (found[name],) = yaml.safe_load_all((DEPLOY / name).read_text())
    return found


def strict(schema: Any) -> Any:
    """A schema that refuses unknown fields, as the API server's strict validation does."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(part) for key, part in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        out["additionalProperties"] = False
    return out


@cache
def kuberay_schema(kind: str, version: str) -> dict[str, Any]:
    """The strict schema of a kind.

    Its rules in CEL (`x-kubernetes-validations`) are not evaluated.
    """
    assert CRDS is not None
    for path in sorted(Path(CRDS).glob("*.yaml")):
        crd = yaml.load(path.read_text(), Loader=LOADER)
        if crd["spec"]["names"]["kind"] == kind:
            for served in crd["spec"]["versions"]:
                if served["name"] == version and served["served"]:
                    return dict(strict(served["schema"]["openAPIV3Schema"]))
    raise AssertionError(f"{CRDS} has no schema of {kind} {version}")


def errors_of(schema: dict[str, Any], document: Any) -> list[str]:
    found = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return [f"{'.'.join(map(str, e.absolute_path))}: {e.message[:200]}" for e in found]


def kuberay_errors(document: dict[str, Any]) -> list[str]:
    group, _, version = document["apiVersion"].partition("/")
    assert group == "ray.io"
    return errors_of(kuberay_schema(document["kind"], version), document)


def pod_schema() -> dict[str, Any]:
    spec = kuberay_schema("RayCluster", "v1")["properties"]["spec"]["properties"]["headGroupSpec"]
    return dict(spec["properties"]["template"]["properties"]["spec"])


def pod_specs(document: Any) -> Iterator[dict[str, Any]]:
    """Of all templates in a manifest."""
    if isinstance(document, dict):
        if "containers" in document:
            yield document
        for part in document.values():
            yield from pod_specs(part)
    elif isinstance(document, list):
        for part in document:
            yield from pod_specs(part)


def unknown(document: dict[str, Any], known: dict[str, type]) -> list[str]:
    return [key for key, value in document.items() if not isinstance(value, known.get(key, ()))]


def test_all_kinds_are_here() -> None:
    kinds = sorted(d["kind"] for d in documents().values())
    assert kinds == ["ConfigMap", "CronJob", "RayCluster", "RayCluster", "RayCronJob", "RayJob"]
    for name, document in documents().items():
        assert set(document["metadata"]) <= METADATA, name


@needs_crds
@pytest.mark.parametrize("name", [n for n, d in documents().items() if d["kind"] in KUBERAY])
def test_kuberay_takes_it(name: str) -> None:
    assert kuberay_errors(documents()[name]) == []


@needs_crds
@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("spec", "headGroupSpecs"), {}, "'headGroupSpecs' was unexpected"),
        (("spec", "authOptions", "mode"), "tokens", "'tokens' is not one of"),
        (("spec", "authOptions", "secret"), "x", "'secret' was unexpected"),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "4", "'4' is not of type 'integer'"),
        (("spec", "workerGroupSpecs", 0, "groupName"), None, "None is not of type 'string'"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0, "0 is not of type 'string'"),
        (("spec", "headGroupSpec", "template", "spec", "volume"), [], "'volume' was unexpected"),
        (
            ("spec", "headGroupSpec", "template", "spec", "containers", 0, "imag"),
            "x",
            "'imag' was unexpected",
        ),
    ],
)
def test_mistakes_are_found(place: tuple[Any, ...], value: Any, said: str) -> None:
    document = copy.deepcopy(documents()["raycluster.yaml"])
    part = document
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    found = kuberay_errors(document)
    assert len(found) == 1 and said in found[0]


@needs_crds
def test_what_is_missing_is_found() -> None:
    document = documents()["raycronjob.yaml"]
    del document["spec"]["schedule"]
    assert kuberay_errors(document) == ["spec: 'schedule' is a required property"]


@needs_crds
def test_the_pod_of_the_cron_job() -> None:
    (pod,) = pod_specs(documents()["cronjob.yaml"])
    assert errors_of(pod_schema(), pod) == []
    assert errors_of(pod_schema(), {**pod, "restart": "Never"}) != []


def test_the_cron_job() -> None:
    document = documents()["cronjob.yaml"]
    assert (document["apiVersion"], document["kind"]) == ("batch/v1", "CronJob")
    assert unknown(document["spec"], CRON_SPEC) == []
    assert set(document["spec"]["jobTemplate"]) == {"spec"}
    assert unknown(document["spec"]["jobTemplate"]["spec"], JOB_SPEC) == []
    assert document["spec"]["concurrencyPolicy"] == "Forbid"
    assert unknown({"schedul": "", "suspend": "no"}, CRON_SPEC) == ["schedul", "suspend"]


def test_a_night_is_not_repeated_for_its_answer() -> None:
    """As the API server checks a pod failure policy."""
    job = documents()["cronjob.yaml"]["spec"]["jobTemplate"]["spec"]
    (pod,) = pod_specs(job)
    assert pod["restartPolicy"] == "Never", "Kubernetes takes a pod failure policy with nothing else"
    assert set(job["podFailurePolicy"]) == {"rules"}
    for rule in job["podFailurePolicy"]["rules"]:
        assert unknown(rule, FAILURE_RULE) == [] and len(rule) == 2
        assert rule["action"] in ("FailJob", "Ignore", "Count", "FailIndex")
        if codes := rule.get("onExitCodes"):
            assert unknown(codes, EXIT_CODES) == [] and codes["operator"] in ("In", "NotIn")
            assert codes["containerName"] in {container["name"] for container in pod["containers"]}
            assert codes["values"] == sorted(set(codes["values"])) and 0 not in codes["values"]
        for condition in rule.get("onPodConditions", ()):
            assert condition == {"type": "DisruptionTarget", "status": "True"}


def test_manifests_fit_together() -> None:
    found = documents()
    config_maps = {d["metadata"]["name"]: d["data"] for d in found.values() if d["kind"] == "ConfigMap"}
    clusters = {d["metadata"]["name"]: d for d in found.values() if d["kind"] == "RayCluster"}
    images, readme = set(), (DEPLOY / "README.md").read_text()
    for name, document in found.items():
        for pod in pod_specs(document):
            volumes = {volume["name"]: volume for volume in pod.get("volumes", ())}
            for volume in volumes.values():
                if "configMap" in volume:
                    assert volume["configMap"]["name"] in config_maps, name
                claim = volume.get("persistentVolumeClaim", {}).get("claimName")
                assert claim is None or f"`{claim}`" in readme, f"{name}: what is {claim}?"
            for container in pod["containers"]:
                images.add(container["image"])
                mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
                assert mounted <= set(volumes), name
                secrets = [part["secretRef"]["name"] for part in container.get("envFrom", ())]
                secrets += [
                    e["valueFrom"]["secretKeyRef"]["name"] for e in container["env"] if "valueFrom" in e
                ]
                for secret in secrets:
                    assert f"`{secret}`" in readme, f"{name}: what is {secret}?"
            used = {m["name"] for c in pod["containers"] for m in c.get("volumeMounts", ())}
            assert used == set(volumes), f"{name}: a volume that nobody mounts"
    assert len(images) == 1 and f"`{images.pop()}`" in readme

    # KubeRay names a head's service after the cluster, and all are one version of Ray.
    (submitter,) = pod_specs(found["cronjob.yaml"])
    (address,) = [a for a in submitter["containers"][0]["args"] if a.startswith("--address=")]
    assert address == "--address=http://forecast-head-svc:8265" and "forecast" in clusters
    versions = {d.get("rayVersion") for document in found.values() for d in cluster_specs(document)}
    assert len(versions) == 1


def cluster_specs(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        if "headGroupSpec" in document:
            yield document
        for part in document.values():
            yield from cluster_specs(part)


def test_the_version_of_ray_is_the_one_that_is_pinned() -> None:
    pinned = (DEPLOY.parents[1] / "constraints.txt").read_text()
    (line,) = [line for line in pinned.splitlines() if line.startswith("ray==")]
    for document in documents().values():
        for spec in cluster_specs(document):
            assert f"ray=={spec['rayVersion']}" == line.split(";")[0].strip()


def test_the_configuration_of_the_config_map_loads(tmp_path: Path) -> None:
    for name, text in documents()["configmap.yaml"]["data"].items():
        (tmp_path / name).write_text(text)
        config = load_config(tmp_path / name)
        assert config.output.startswith("s3://")
        assert config.nightly is not None
        # The submitting pod sends it, and nothing else.
        assert pack(config, None, ("/models",), "nightly", with_code=False).files == {}
        (watch,) = config.nightly.watch
        assert watch.step_of("step_4000") == 4000 and watch.final_step is not None
        for target in config.nightly.deliver:
            assert target.webhook is None, "a URL that is a secret does not belong into a ConfigMap"
            assert f"`{target.webhook_env}`" in (DEPLOY / "README.md").read_text()
