import pytest

from deployments.core.batch_budget import measured_batch_tokens
from tests.fakes import FakeTextEncoder


class TimedTextEncoder(FakeTextEncoder):
    """Its passes last a given time per token, on its own clock; the first one ten times as long."""

    def __init__(self, seconds_per_token):
        super().__init__()
        self.now = 0.0
        self._seconds_per_token = seconds_per_token

    def encode(self, tokens):
        slowness = 1 if self.batches else 10
        self.now += slowness * self._seconds_per_token * len(tokens) * max(map(len, tokens))
        return super().encode(tokens)


@pytest.mark.parametrize(
    ("seconds_per_token", "expected"),
    [(1.0, 256), (0.1 / 600, 512), (0.1 / 2100, 2048), (0.0, 16_384)],
)
def test_the_budget_fits_the_time(seconds_per_token, expected):
    encoder = TimedTextEncoder(seconds_per_token)
    assert measured_batch_tokens(encoder, seconds=0.1, clock=lambda: encoder.now) == expected


def test_it_costs_little_more_than_the_answer():
    encoder = TimedTextEncoder(0.1 / 600)
    measured_batch_tokens(encoder, seconds=0.1, clock=lambda: encoder.now)
    assert encoder.now < 0.6
