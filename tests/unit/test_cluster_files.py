"""The files under cluster/ fit each other, the service and what reads them."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _generate_available_node_types_from_ray_cr_spec as node_types_of_pods,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from deployments.app import INDEX_CPUS, INGRESS_CPUS
from deployments.core.errors import SettingsError
from deployments.core.exposure import check_exposure
from deployments.core.settings import FOREIGN_PREFIXES, PREFIXES, Settings
from deployments.serve_process import RAY_ENVIRONMENT
from tests.documents import GUIDE, ROOT, blocks

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


def installed_packages():
    """Debian's packages in the service's stage, beside those of the base image."""
    (names,) = re.findall(r"apt-get install --yes --no-install-recommends (.*) \\\n", DOCKERFILE)
    return set(names.split())


def packages_of_stage(name):
    """Requirements that a stage installs with pip, with their extras."""
    (stage,) = re.findall(rf" AS {name}\n(.*?)\nFROM ", DOCKERFILE, re.S)
    steps = " ".join(re.findall(r"pip install ([^\n\\]*)", stage))
    return [word for word in shlex.split(steps) if re.match(r"[\w.]", word)]


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


def compose_settings(given, monkeypatch):
    """The settings in the container when the shell of `docker compose` has these variables."""
    environment = COMPOSE["services"]["embeddings-service"]["environment"]
    return settings_of(
        {name: interpolated(str(value), given) for name, value in environment.items()}, monkeypatch
    )


KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    ("given", "anonymous"),
    [
        ({}, True),
        ({"EMBEDDINGS_API_KEY": "", "EMBEDDINGS_READ_ONLY_API_KEY": ""}, True),
        ({"EMBEDDINGS_ALLOW_ANONYMOUS": "1"}, True),
        ({"EMBEDDINGS_API_KEY": KEY}, False),
        ({"EMBEDDINGS_READ_ONLY_API_KEY": KEY}, False),
        ({"EMBEDDINGS_API_KEY": KEY, "EMBEDDINGS_ALLOW_ANONYMOUS": ""}, False),
        ({"EMBEDDINGS_API_KEY": KEY, "EMBEDDINGS_ALLOW_ANONYMOUS": "0"}, False),
    ],
)
def test_compose_starts_with_and_without_a_key(monkeypatch, given, anonymous):
    settings = compose_settings(given, monkeypatch)
    assert settings.embeddings_allow_anonymous is anonymous
    assert (settings.api_keys() is None) == anonymous
    check_exposure(settings, SERVE_CONFIG["http_options"]["host"])


def test_compose_leaves_a_contradiction_to_the_settings(monkeypatch):
    with pytest.raises(SettingsError, match="lets everybody in, and a key is set"):
        compose_settings(
            {"EMBEDDINGS_API_KEY": KEY, "EMBEDDINGS_ALLOW_ANONYMOUS": "1"}, monkeypatch
        )


def compose_commands():
    """Every line with `docker compose` in the guide and in the file's own comment."""
    typed = [block.text for page in sorted(GUIDE.glob("*.md")) for block in blocks(page)]
    typed += re.findall(r"^#   (.*)$", (CLUSTER / "docker-compose.yml").read_text(), re.M)
    return [line for text in typed for line in text.splitlines() if "docker compose" in line]


def typed_at_the_root(command, folder):
    """Arguments and environment that `docker` gets when a shell in ROOT is given this command."""
    told = folder / "told.json"
    docker = folder / "docker"
    docker.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        f"json.dump([sys.argv[1:], dict(os.environ)], open({str(told)!r}, 'w'))\n"
    )
    docker.chmod(0o755)
    environment = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", command], cwd=ROOT, env=environment, check=True)
    return json.loads(told.read_text())


def test_compose_is_documented_with_a_key_and_without():
    assert {"EMBEDDINGS_API_KEY=" in command for command in compose_commands()} == {True, False}


@pytest.mark.parametrize("command", compose_commands())
def test_documented_compose_commands_work_at_the_root(monkeypatch, tmp_path, command):
    arguments, environment = typed_at_the_root(command, tmp_path)
    settings = compose_settings(environment, monkeypatch)
    assert (settings.api_keys() is not None) == ("EMBEDDINGS_API_KEY=" in command)
    check_exposure(settings, SERVE_CONFIG["http_options"]["host"])

    assert arguments[:2] == ["compose", "-f"]
    file = ROOT / arguments[2]
    assert yaml.safe_load(file.read_text()) == COMPOSE
    # Where compose looks for relative paths, unless --project-directory says otherwise.
    assert "--project-directory" not in arguments
    folder = file.parent
    build = COMPOSE["services"]["embeddings-service"]["build"]
    context = (folder / build["context"]).resolve()
    assert context == ROOT
    assert (context / build["dockerfile"]).samefile(CLUSTER / "Dockerfile")
    mounted = {}
    for service in COMPOSE["services"].values():
        for volume in service["volumes"]:
            source, target = volume.split(":")[:2]
            if source.startswith("."):
                mounted[target] = (folder / source).resolve()
            else:
                assert source in COMPOSE["volumes"], source
    # Docker makes it where it's missing.
    assert mounted.pop("/data/processed/faiss") == ROOT / "data/processed/faiss"
    assert len(mounted) == 4
    assert all(source.exists() for source in mounted.values()), mounted


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


def test_the_image_has_what_kuberay_probes_workers_with():
    """KubeRay's readiness probe is `wget … | grep success`, unless a container has its own."""
    groups = RAY_SERVICE["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    containers = [each for group in groups for each in group["template"]["spec"]["containers"]]
    assert not any("readinessProbe" in container for container in containers)
    assert "wget" in installed_packages()


def test_ray_up_takes_its_file():
    config = prepare_config(dict(RAY_CLUSTER))
    validate_config(config)
    assert config["available_node_types"]["head"]["resources"]["index_volume"] == 1
    commands = " ".join(config["head_start_ray_commands"])
    assert '"index_volume": 1' in commands
    assert f"--num-cpus={config['available_node_types']['head']['resources']['CPU']} " in commands


def test_only_torch_comes_from_an_index_of_its_own():
    """PyTorch's has few of the versions in constraints.txt, so a step with dependencies fails."""
    steps = [line for line in DOCKERFILE.splitlines() if "pip install" in line]
    (torch,) = [step for step in steps if "index-url" in step]
    options = shlex.split(torch.rstrip("\\"))
    assert options[-4:] == ["--no-deps", "--index-url", "$TORCH_INDEX", "torch"]
    assert steps.index(torch) == 0


@pytest.mark.parametrize(("stage", "kind"), [("build-cpu", "cpu"), ("build-gpu", "gpu")])
def test_the_images_read_parquet_and_buckets(stage, kind):
    (project,) = [each for each in packages_of_stage(stage) if each.startswith(".[")]
    assert set(project[2:-1].split(",")) == {kind, "model", "parquet", "buckets"}
    assert "`embeddings-service[buckets]`; the images" in (GUIDE / "backfill.md").read_text()


def test_the_image_has_what_ray_up_runs_in_it():
    # Its node provider imports boto3, and its head starts Ray on workers by ssh.
    assert {"openssh-client", "procps", "rsync"} <= installed_packages()
    assert "boto3" in packages_of_stage("build-cpu")
    # Commands that are left to Ray's defaults would be run by a user who can't install anything.
    config = prepare_config(dict(RAY_CLUSTER))
    assert config["head_setup_commands"] == config["worker_setup_commands"] == []


def test_login_shells_find_the_service(tmp_path):
    """Ray runs its commands in them, and /etc/profile of Debian forgets the image's PATH."""
    (said,) = re.findall(r"echo '(.*)' > /etc/profile\.d/\w+\.sh ", DOCKERFILE)
    (tmp_path / ".bash_profile").write_text(said)
    shell = ["bash", "--login", "-c", "echo $PATH"]
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True)
    wanted = image_environment()["PATH"].split(":")[0]
    assert done.stdout.split(":")[0] == wanted == "/opt/venv/bin"


def test_every_node_of_ray_up_has_keys_and_the_same_token():
    """From one secret; files that Ray mounts belong to a user whom the container doesn't know."""
    options = RAY_CLUSTER["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    (path,) = [each.split()[1] for each in options if each.startswith("--env-file ")]
    fetched = " ".join(RAY_CLUSTER["initialization_commands"])
    assert "get-secret-value --secret-id embeddings-service " in fetched
    assert f"tee {path} " in fetched
    assert "file_mounts" not in RAY_CLUSTER


def kubernetes_nodes(monkeypatch):
    spec = RAY_SERVICE["spec"]
    args = yaml.safe_load(spec["serveConfigV2"])["applications"][1]["args"]
    return node_types_of_pods(spec["rayClusterConfig"]), Settings.load(args)


def ray_up_nodes(monkeypatch):
    options = [each.split(maxsplit=1) for each in RAY_CLUSTER["docker"]["run_options"]]
    given = dict(value.split("=", 1) for option, value in options if option == "--env")
    types = prepare_config(dict(RAY_CLUSTER))["available_node_types"]
    return types, settings_of(given, monkeypatch)


@pytest.mark.parametrize("cluster", [kubernetes_nodes, ray_up_nodes])
def test_encoders_at_their_maximum_need_the_worker_nodes(monkeypatch, cluster):
    """Ray starts a node for a replica only if no other has so many CPUs left."""
    types, settings = cluster(monkeypatch)
    cpus, workers = settings.embeddings_encoder_cpus, settings.embeddings_workers
    (home,) = [each for each in types.values() if "index_volume" in each["resources"]]
    plain = [each for each in types.values() if "GPU" not in each["resources"]]
    room = types["cpu"]["resources"]["CPU"]

    # None is beside the index, where an Ingress has room.
    ingresses = settings.embeddings_ingress_workers * INGRESS_CPUS
    assert INDEX_CPUS + ingresses <= home["resources"]["CPU"] < cpus
    # The smallest size has an encoder, but not all; the largest one has.
    in_a_node = int(room // cpus)
    assert 1 <= types["cpu"]["min_workers"] * in_a_node < workers
    assert types["cpu"]["max_workers"] * in_a_node == workers
    least, most = (
        sum(each["resources"]["CPU"] * max(each[number], each is home) for each in plain)
        for number in ("min_workers", "max_workers")
    )
    assert least < workers * cpus <= most - INDEX_CPUS - ingresses
    # And what Ray sets aside is what they use, with some left for Ray's own processes.
    assert settings.embeddings_encoder_threads == cpus
    assert in_a_node * cpus <= room - 1


def test_every_variable_of_the_cluster_files_is_a_setting():
    given = " ".join(
        (CLUSTER / name).read_text()
        for name in ("Dockerfile", "docker-compose.yml", "ray-cluster.yaml", "rayservice.yaml")
    )
    names = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", given))
    ours = {n for n in names if n.startswith(PREFIXES) and not n.startswith(FOREIGN_PREFIXES)}
    assert len(ours) > 8
    assert {name.lower() for name in ours} <= set(Settings.model_fields)
