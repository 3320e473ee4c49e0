"""What an evaluation hands back: numbers, and which of them have to be what."""

from dataclasses import dataclass, field, replace

NEAR_NUMPY = 0.001


@dataclass(frozen=True, slots=True)
class Measure:
    """One number that the service reached.

    `numpy` is what a plain ranking of the same vectors reaches; `target` says what the value has
    to be, and `met` whether it is; both are None where nothing is asked.
    """

    evaluation: str
    data: str
    name: str
    value: float
    numpy: float | None = None
    target: str | None = None
    met: bool | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that was measured, what had no data set, and what could not be measured and why."""

    measures: list[Measure] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @property
    def targets_met(self) -> bool:
        """Whether nothing failed and every measure with a target meets it."""
        return not self.failed and all(measure.met is not False for measure in self.measures)


def at_least(least: float, measure: Measure) -> Measure:
    """The measure with its smallest allowed value."""
    return _with_target(measure, f"≥ {least:g}", measure.value >= least)


def exactly(value: float, measure: Measure) -> Measure:
    """The measure with its only allowed value."""
    return _with_target(measure, f"= {value:g}", measure.value == value)


def near_numpy(measure: Measure) -> Measure:
    """The measure, which has to be that of the plain ranking but for rounding and near-ties."""
    assert measure.numpy is not None
    near = abs(measure.value - measure.numpy) <= NEAR_NUMPY
    return _with_target(measure, f"± {NEAR_NUMPY:g}", near)


def _with_target(measure: Measure, target: str, met: bool) -> Measure:
    return replace(measure, target=target, met=met)
