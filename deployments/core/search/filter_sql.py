"""A filter as a condition in SQL over a row of `segments`.

Every value and every name that a user gave is a bound parameter. A condition is 0 or 1, never NULL,
so that its negation is the other one.
"""

import json

from deployments.core.filters import (
    And,
    AnyOf,
    Between,
    Bound,
    Column,
    Exists,
    Filter,
    IdIn,
    Not,
    Or,
    Overlaps,
    Path,
    Subject,
)

_NUMBER = "('integer', 'real')"
_COMPARISONS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class FilterSql:
    """The condition of a filter, and what its numbered parameters are bound to.

    `first` is the number of the first parameter.
    """

    def __init__(self, wanted: Filter, first: int = 1) -> None:
        self.parameters: list[str | int | float] = []
        self._first = first
        self.condition = self._condition(wanted)

    def _bind(self, value: str | int | float) -> str:
        self.parameters.append(value)
        return f"?{self._first + len(self.parameters) - 1}"

    def _bound(self, values: tuple[str | int | float, ...]) -> str:
        return ", ".join(self._bind(value) for value in values)

    def _condition(self, wanted: Filter) -> str:
        match wanted:
            case And(parts):
                return self._joined(" AND ", parts, "1")
            case Or(parts):
                return self._joined(" OR ", parts, "0")
            case Not(negated):
                return f"NOT {self._condition(negated)}"
            case IdIn(column, keys):
                return f"(CAST({column.value} AS TEXT) IN ({self._bound(keys)}))"
            case Overlaps(start, end):
                return self._overlaps(start, end)
        return self._about(wanted.subject, wanted)

    def _joined(self, operator: str, parts: tuple[Filter, ...], none: str) -> str:
        return f"({operator.join(self._condition(part) for part in parts) or none})"

    def _overlaps(self, start: int | float | None, end: int | float | None) -> str:
        first, last = "coalesce(start_time, end_time)", "coalesce(end_time, start_time)"
        tests = [f"{first} IS NOT NULL"]
        if start is not None:
            tests.append(f"coalesce({last} >= {self._bind(start)}, 0)")
        if end is not None:
            tests.append(f"coalesce({first} <= {self._bind(end)}, 0)")
        return f"({' AND '.join(tests)})"

    def _about(self, subject: Subject, wanted: AnyOf | Between | Exists) -> str:
        if isinstance(subject, Column):
            return self._holds(wanted, f"typeof({subject.value})", subject.value)
        keys = [json.dumps(key, ensure_ascii=False)[1:-1] for key in subject]
        if any('"' in key for key in subject):
            return self._holds_anywhere(subject, wanted)
        # Most rows have one value or none at the path, which is found five times as fast directly.
        path = self._bind("$" + "".join(f'."{key}"' for key in keys))
        kind = f"json_type(metadata, {path})"
        alone = self._holds(wanted, kind, f"json_extract(metadata, {path})")
        anywhere = self._holds_anywhere(subject, wanted)
        missing = "0" if len(subject) == 1 else anywhere
        return (
            f"(CASE WHEN {kind} IS NULL THEN {missing} "
            f"WHEN {kind} = 'array' THEN {anywhere} ELSE {alone} END)"
        )

    def _holds_anywhere(self, path: Path, wanted: AnyOf | Between | Exists) -> str:
        """Whether one of the values at a path meets a condition, through lists of any depth."""
        keys = " ".join(f"WHEN {step} THEN {self._bind(key)}" for step, key in enumerate(path))
        return (
            "EXISTS (WITH RECURSIVE found(step, kind, value) AS ("
            # The sign keeps the column's affinity from making texts of the numbers below.
            "SELECT 0, 'object', +metadata UNION ALL "
            "SELECT step + (found.kind = 'object'), part.type, part.value "
            # SQLite may look into what the conditions below exclude; text is no JSON.
            "FROM found, json_each(iif(found.kind IN ('array', 'object'), found.value, NULL)) "
            f"AS part WHERE found.kind = 'array' OR part.key = CASE step {keys} END) "
            f"SELECT 1 FROM found WHERE step = {len(path)} AND kind <> 'array' "
            f"AND {self._holds(wanted, 'kind', 'value')})"
        )

    def _holds(self, wanted: AnyOf | Between | Exists, kind: str, value: str) -> str:
        """Whether a value of a type meets a condition; neither is an array."""
        match wanted:
            case AnyOf(_, texts, numbers, booleans):
                tests = [f"{kind} = '{'true' if each else 'false'}'" for each in booleans]
                if texts:
                    tests.append(f"({kind} = 'text' AND {value} IN ({self._bound(texts)}))")
                if numbers:
                    tests.append(f"({kind} IN {_NUMBER} AND {value} IN ({self._bound(numbers)}))")
                return f"({' OR '.join(tests) or '0'})"
            case Between():
                bounds = _bounds(wanted)
                of_texts = all(isinstance(bound, str) for bound in bounds.values())
                tests = [f"{kind} = 'text'" if of_texts else f"{kind} IN {_NUMBER}"]
                for name, bound in bounds.items():
                    tests.append(f"{value} {_COMPARISONS[name]} {self._bind(bound)}")
                return f"({' AND '.join(tests)})"
            case Exists():
                return f"({kind} <> 'null')"


def _bounds(wanted: Between) -> dict[str, Bound]:
    bounds = {name: getattr(wanted, name) for name in _COMPARISONS}
    return {name: bound for name, bound in bounds.items() if bound is not None}
