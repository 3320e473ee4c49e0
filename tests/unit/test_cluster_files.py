"""The files under cluster/ fit each other, the service and what reads them."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from deployments.core.errors import SettingsError
from deployments.core.exposure import check_exposure
from deployments.core.settings import FOREIGN_PREFIXES, PREFIXES, Settings
from deployments.serve_process import RAY_ENVIRONMENT

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
DOCKERFILE = (CLUSTER / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((CLUSTER / "docker-compose.yml").read_text())
CLAIM, RAY_SERVICE = yaml.safe_load_all((CLUSTER / "rayservice.yaml").read_text())
RAY_CLUSTER = yaml.safe_load((CLUSTER / "ray-cluster.yaml").read_text())
SERVE_CONFIG = yaml.safe_load((CLUSTER / "serve_config.yaml").read_text())
# Those that a single machine wants otherwise.
ONE_MACHINE_ONLY = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"}


def image_environment():
    """What the Dockerfile sets in the service's stage."""
    (stage,) = re.findall(r" AS service\n(.*?)\nFROM ", DOCKERFILE, re.S)
    (assignments,) = re.findall(r"^ENV (.*?[^\\])\n", stage, re.S | re.M)
    return dict(part.split("=", 1) for part in shlex.split(assignments.replace("\\\n", " ")))


def settings_of(environment, monkeypatch, args=None):
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    return Settings.load(args)


def test_the_image_runs_ray_as_make_run_does():
    environment = image_environment()
    for name, value in RAY_ENVIRONMENT.items():
        if name in ONE_MACHINE_ONLY:
            continue
        if value.endswith("/embeddings-haproxy"):
            value = "/opt/venv/bin/embeddings-haproxy"
        assert environment.get(name) == value, name


def test_the_image_runs_as_somebody_and_keeps_the_data_where_the_volume_is(monkeypatch):
    settings = settings_of(image_environment(), monkeypatch)
    assert str(settings.faiss_index_dir) == "/data/processed/faiss"
    assert "\nUSER service\n" in DOCKERFILE
    assert "\nVOLUME /data/processed/faiss\n" in DOCKERFILE
    assert "--uid 10001" in DOCKERFILE


def test_what_the_image_is_made_of_is_there_and_not_ignored():
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M)
    names = {name for source in sources for name in source.split()}
    assert len(names) > 4
    allowed = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)


def test_a_container_is_the_service_that_its_callers_know():
    service = COMPOSE["services"]["embeddings-service"]
    assert service["container_name"] == "trading-embeddings-service"
    assert service["ports"] == ["127.0.0.1:8004:8004"]
    assert service["networks"] == ["trading-network"]
    assert COMPOSE["networks"]["trading-network"]["name"] == "trading-network"
    assert "./data/processed/faiss:/data/processed/faiss" in service["volumes"]
    assert {"EMBEDDING_MODEL", "EMBEDDING_DEVICE", "FAISS_INDEX_DIR", "EMBEDDINGS_WORKERS"} <= set(
        service["environment"]
    )


def interpolated(value, given):
    """As docker compose reads `${NAME:-default}` and `${NAME-default}`."""
    match = re.fullmatch(r"\$\{(\w+)(:?)-(.*)\}", value)
    if match is None:
        return value
    name, colon, default = match.groups()
    current = given.get(name)
    return default if current is None or (colon and not current) else current


@pytest.mark.parametrize(
    ("given", "anonymous", "keys"),
    [
        ({}, True, False),
        (
            {"EMBEDDINGS_API_KEY": "0123456789abcdef", "EMBEDDINGS_ALLOW_ANONYMOUS": ""},
            False,
            True,
        ),
    ],
)
def test_compose_starts_with_and_without_a_key(monkeypatch, given, anonymous, keys):
    environment = COMPOSE["services"]["embeddings-service"]["environment"]
    settings = settings_of(
        {name: interpolated(str(value), given) for name, value in environment.items()}, monkeypatch
    )
    assert settings.embeddings_allow_anonymous == anonymous
    assert (settings.api_keys() is not None) == keys
    check_exposure(settings, SERVE_CONFIG["http_options"]["host"])


def test_what_compose_mounts_is_there():
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith("./cluster"):
                assert (ROOT / source).exists(), source
            elif not source.startswith("."):
                assert source in COMPOSE["volumes"], source


def test_without_a_key_a_cluster_refuses_to_serve():
    with pytest.raises(SettingsError, match="without an API key"):
        check_exposure(Settings.load({}), SERVE_CONFIG["http_options"]["host"])


def test_the_configurations_differ_in_what_they_must_only():
    local = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    kubernetes = yaml.safe_load(RAY_SERVICE["spec"]["serveConfigV2"])
    for config in (local, SERVE_CONFIG, kubernetes):
        ServeDeploySchema.model_validate(config)
        assert config.pop("proxy_location") in ("HeadOnly", "EveryNode")
        assert config["http_options"].pop("host") in ("127.0.0.1", "0.0.0.0")
        for application in config["applications"]:
            Settings.load(application.pop("args", {}))
    assert local == SERVE_CONFIG == kubernetes


def test_kubernetes_never_runs_two_indices():
    spec = RAY_SERVICE["spec"]
    assert spec["upgradeStrategy"] == {"type": "None"}
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteOncePod"]
    groups = {group["groupName"]: group for group in spec["rayClusterConfig"]["workerGroupSpecs"]}
    assert groups["index"]["maxReplicas"] == 1
    claims = {
        name: [
            volume["persistentVolumeClaim"]["claimName"]
            for volume in group["template"]["spec"].get("volumes", [])
        ]
        for name, group in groups.items()
    }
    assert claims == {"index": [CLAIM["metadata"]["name"]], "cpu": [], "gpu": []}
    args = yaml.safe_load(spec["serveConfigV2"])["applications"][0]["args"]
    resources = json.loads(json.loads(groups["index"]["rayStartParams"]["resources"].strip("'")))
    assert resources == {args["faiss_index_resource"]: 1}


def test_every_pod_has_time_limits_of_memory_and_a_user():
    config = RAY_SERVICE["spec"]["rayClusterConfig"]
    for group in [config["headGroupSpec"], *config["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        assert pod["terminationGracePeriodSeconds"] > 60
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"]["memory"]
        assert {"name": "serve", "containerPort": 8004} in container["ports"]
        assert container["envFrom"] == [{"secretRef": {"name": "embeddings-api-keys"}}]


def test_ray_up_takes_its_file():
    config = prepare_config(dict(RAY_CLUSTER))
    validate_config(config)
    assert config["available_node_types"]["head"]["resources"]["index_volume"] == 1
    assert '"index_volume": 1' in " ".join(config["head_start_ray_commands"])


def test_every_variable_of_the_cluster_files_is_a_setting():
    given = " ".join(
        (CLUSTER / name).read_text()
        for name in ("Dockerfile", "docker-compose.yml", "ray-cluster.yaml", "rayservice.yaml")
    )
    names = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", given))
    ours = {n for n in names if n.startswith(PREFIXES) and not n.startswith(FOREIGN_PREFIXES)}
    assert len(ours) > 8
    assert {name.lower() for name in ours} <= set(Settings.model_fields)
