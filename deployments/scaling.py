"""When Serve starts and stops replicas.

Serve pickles the policy by value into its controller: this module must not import others of this
package.
"""

from collections.abc import Sequence
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

TARGET_BUSY = 0.7
"""Of the time, an encoder should be at work so much; beyond it queries begin to wait."""

TARGET_QUEUED_S = 0.25
"""Of work may wait for an encoder; more is a crowd and no chance meeting."""

INGRESS_TARGET_REQUESTS = 128
"""An Ingress answers about a thousand small requests a second; these keep it at work."""

UPSCALE_DELAY_S = 2.0
LOOK_BACK_S = 11.0
"""What replicas measured so long ago counts. Serve wants more than the 10 s after which they report
by default (RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S)."""

RECENT_S = 5.0
"""Of that, the policy takes the last part: the average of all would react much later."""


def encoders_for_work(context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
    """How many encoders the work needs, for Serve to bound and to delay.

    From what `Workload.read` tells of each replica: as many as keep each below TARGET_BUSY, and as
    many as the waiting tokens take TARGET_QUEUED_S of.
    """
    if context.current_num_replicas == 0:
        return context.target_num_replicas, {}
    reported = context.raw_metrics or {}
    busy = sum(map(_recent_mean, reported.get("busy", {}).values()))
    queued_s = sum(map(_recent_mean, reported.get("queued_seconds", {}).values()))
    return max(busy / TARGET_BUSY, queued_s / TARGET_QUEUED_S), {}


def _recent_mean(series: Sequence[Any]) -> float:
    """The mean of the values, each with its `timestamp` in seconds, that are nearly the newest."""
    newest = max((point.timestamp for point in series), default=0.0)
    recent = [point.value for point in series if newest - point.timestamp <= RECENT_S]
    return sum(recent) / len(recent) if recent else 0.0


def scale_encoders(*, least: int, most: int, scale_down_s: float) -> AutoscalingConfig:
    """From `least` to `most` encoders; one too many is stopped after `scale_down_s`."""
    return AutoscalingConfig(
        min_replicas=least,
        max_replicas=most,
        policy=AutoscalingPolicy(policy_function=encoders_for_work),
        upscale_delay_s=UPSCALE_DELAY_S,
        downscale_delay_s=scale_down_s,
        look_back_period_s=LOOK_BACK_S,
    )


def scale_ingresses(*, most: int, scale_down_s: float) -> AutoscalingConfig:
    """From one Ingress to `most`, by the requests that they have."""
    return AutoscalingConfig(
        min_replicas=1,
        max_replicas=most,
        target_ongoing_requests=INGRESS_TARGET_REQUESTS,
        upscale_delay_s=UPSCALE_DELAY_S,
        downscale_delay_s=scale_down_s,
        look_back_period_s=LOOK_BACK_S,
    )
