"""What the builders bind for which settings."""

import pytest

from deployments import app
from deployments.core.errors import SettingsError


def deployments_of(args):
    ingress = app.embeddings(args)._bound_deployment
    settings, encoder, gpu_encoder, _ = ingress.init_args
    return settings, ingress, encoder._bound_deployment, gpu_encoder


def gpus_of(deployment):
    return deployment.ray_actor_options.get("num_gpus", 0)


def test_the_index_runs_where_its_volume_is():
    deployment = app.index({"faiss_index_resource": "index_volume"})._bound_deployment
    assert deployment.ray_actor_options["resources"] == {"index_volume": 1}
    assert "resources" not in app.index({})._bound_deployment.ray_actor_options


def test_one_encoder_and_one_ingress_by_default():
    _, ingress, encoder, gpu_encoder = deployments_of({})
    assert ingress.num_replicas == encoder.num_replicas == 1
    assert gpus_of(encoder) == 0
    assert gpu_encoder is None


def test_the_numbers_of_workers_are_upper_bounds():
    args = {
        "embeddings_workers": 3,
        "embeddings_ingress_workers": 2,
        "embeddings_scale_down_s": 7,
    }
    _, ingress, encoder, _ = deployments_of(args)
    bounds = [
        (config.min_replicas, config.max_replicas, config.downscale_delay_s)
        for config in (
            ingress._deployment_config.autoscaling_config,
            encoder._deployment_config.autoscaling_config,
        )
    ]
    assert bounds == [(1, 2, 7), (1, 3, 7)]


@pytest.mark.parametrize(("args", "cpus"), [({}, 0.5), ({"embeddings_encoder_cpus": 3}, 3)])
def test_encoders_without_a_gpu_reserve_their_cpus(args, cpus):
    args = args | {"embeddings_gpu_workers": 1}
    _, ingress, encoder, gpu_encoder = deployments_of(args)
    assert encoder.ray_actor_options["num_cpus"] == cpus
    assert gpu_encoder._bound_deployment.ray_actor_options["num_cpus"] == 0.5
    # With the defaults everything starts on one core.
    index = app.index({})._bound_deployment
    rest = sum(each.ray_actor_options["num_cpus"] for each in (ingress, index))
    assert rest + 0.5 <= 1


def test_encoders_on_gpus_come_on_demand_beside_those_on_cpus():
    _, _, encoder, bound = deployments_of({"embeddings_gpu_workers": 2})
    gpu_encoder = bound._bound_deployment
    assert (encoder.name, gpu_encoder.name) == ("Encoder", "GpuEncoder")
    assert (gpus_of(encoder), gpus_of(gpu_encoder)) == (0, 1)
    scaling = gpu_encoder._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (0, 2)
    devices = [each.init_args[0].embedding_device for each in (encoder, gpu_encoder)]
    assert devices == ["cpu", "auto"]


def test_cuda_for_all_encoders_reserves_a_gpu_for_each():
    _, _, encoder, gpu_encoder = deployments_of({"embedding_device": "cuda"})
    assert gpus_of(encoder) == 1
    assert gpu_encoder is None


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_both_kinds_at_once_leave_the_device_to_the_service(device):
    with pytest.raises(SettingsError, match="EMBEDDINGS_GPU_WORKERS adds encoders on GPUs"):
        app.embeddings({"embedding_device": device, "embeddings_gpu_workers": 1})
