"""The configuration for TensorFlow Serving, Docker and Kubernetes fits together."""

import pathlib

import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

import serving_messages

_SERVE = pathlib.Path(__file__).resolve().parents[2] / "serve"
_CONFIG = _SERVE / "kubernetes" / "config"


def _proto(name, message):
    return text_format.Parse((_CONFIG / name).read_text(), message)


def _kubernetes():
    documents = yaml.safe_load_all(
        (_SERVE / "kubernetes" / "kubernetes.yaml").read_text()
    )
    return {(x["kind"], x["metadata"]["name"]): x for x in documents}


def _compose():
    return yaml.safe_load((_SERVE / "docker-compose.yml").read_text())["services"]


def test_models_config():
    config = _proto("models.config", model_server_config_pb2.ModelServerConfig())
    (model,) = config.model_config_list.config
    assert (model.name, model.base_path) == ("dfdetect", "/models/dfdetect")
    versions = list(model.model_version_policy.specific.versions)
    assert sorted(model.version_labels) == ["canary", "stable"]
    assert sorted(model.version_labels.values()) == versions == [1, 2]


def test_batching_and_monitoring():
    config = _proto("batching.config", serving_messages.BatchingParameters())
    assert config.num_batch_threads.value > 0
    config = _proto("monitoring.config", serving_messages.MonitoringConfig())
    assert config.prometheus_config.enable
    prometheus = yaml.safe_load((_SERVE / "prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["metrics_path"] == config.prometheus_config.path
    (target,) = job["static_configs"][0]["targets"]
    assert target.split(":")[0] in _compose()


def test_compose_mounts_files_that_are_there():
    services = _compose()
    for service in services.values():
        assert service["image"].rpartition(":")[2] not in ("", "latest")
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:")
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("${MODELS") or (_SERVE / source).exists()
    serving = services["tensorflow-serving"]
    # Its folder: a file that an editor replaces would stay the old one.
    mounted = {x.split(":")[-2]: x.split(":")[0] for x in serving["volumes"]}
    asked = [x.partition("=")[2] for x in serving["command"] if "_file=" in x]
    assert len(asked) == 3
    for path in map(pathlib.PurePosixPath, asked):
        assert (_SERVE / mounted[str(path.parent)] / path.name).is_file()


def test_a_gpu_changes_the_image_and_asks_for_one():
    gpu = yaml.safe_load((_SERVE / "docker-compose.gpu.yml").read_text())["services"]
    plain = _compose()["tensorflow-serving"]
    serving = gpu["tensorflow-serving"]
    assert serving["image"] == plain["image"] + "-gpu"
    (device,) = serving["deploy"]["resources"]["reservations"]["devices"]
    assert (device["count"], device["capabilities"]) == (1, ["gpu"])

    overlay = yaml.safe_load((_SERVE / "gpu" / "kustomization.yaml").read_text())
    (base,) = overlay["resources"]
    found = (_SERVE / "gpu" / base).resolve()
    assert (found / "kustomization.yaml").is_file()
    # Kustomize takes no base that the overlay lies in.
    assert not (_SERVE / "gpu").is_relative_to(found)
    (image,) = overlay["images"]
    assert f"{image['name']}:{image['newTag']}" == serving["image"]
    patch = yaml.safe_load(overlay["patches"][0]["patch"])
    patched = _kubernetes()[patch["kind"], patch["metadata"]["name"]]
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    (whole,) = patched["spec"]["template"]["spec"]["containers"]
    assert container["name"] == whole["name"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}


def test_some_replica_answers_while_nodes_are_drained():
    kubernetes = _kubernetes()
    budget = kubernetes["PodDisruptionBudget", "dfdetect"]["spec"]
    scaler = kubernetes["HorizontalPodAutoscaler", "dfdetect"]["spec"]
    pod = kubernetes["Deployment", "dfdetect"]["spec"]["template"]
    labels = pod["metadata"]["labels"].items()
    assert budget["selector"]["matchLabels"].items() <= labels
    assert 1 <= budget["minAvailable"] < scaler["minReplicas"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_kubernetes_says_the_same_as_compose():
    kubernetes = _kubernetes()
    pod = kubernetes["Deployment", "dfdetect"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    serving = _compose()["tensorflow-serving"]
    assert container["image"] == serving["image"]
    assert set(serving["command"]) <= set(container["args"])
    for kind, name in (("Service", "dfdetect"), ("Service", "dfdetect-replicas")):
        selector = kubernetes[kind, name]["spec"]["selector"]
        assert selector.items() <= pod["metadata"]["labels"].items()
    scaler = kubernetes["HorizontalPodAutoscaler", "dfdetect"]["spec"]
    assert scaler["scaleTargetRef"]["name"] == "dfdetect"
    assert container["resources"]["requests"]["cpu"]  # What its percentage is of.
    assert container["readinessProbe"]["httpGet"]["port"] == "rest"

    folder = _SERVE / "kubernetes"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    (generated,) = kustomization["configMapGenerator"]
    for name in [*kustomization["resources"], *generated["files"]]:
        assert (folder / name).is_file()
    config = next(x for x in pod["spec"]["volumes"] if x["name"] == "config")
    assert config["configMap"]["name"] == generated["name"]
    files = {x.rpartition("/")[2] for x in container["args"] if "/config/" in x}
    assert files == {pathlib.PurePath(x).name for x in generated["files"]}
