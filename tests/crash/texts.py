"""Sentences from a small vocabulary: short, different, and the same for the same seed."""

import random

_SUBJECTS = [
    "the relative strength index",
    "a moving average",
    "the volume",
    "this breakout",
    "a stop loss",
    "the opening range",
    "an earnings report",
    "the option premium",
    "a bearish divergence",
    "the trend line",
    "our position",
    "the market maker",
    "a limit order",
    "the daily chart",
    "implied volatility",
    "the support level",
    "a candlestick",
    "the risk of one trade",
    "a covered call",
    "the spread",
]
_VERBS = [
    "confirms",
    "follows",
    "breaks",
    "tests",
    "limits",
    "widens with",
    "depends on",
    "hides",
    "leads",
    "measures",
    "reacts to",
    "falls below",
    "rises above",
    "protects",
    "precedes",
    "ignores",
]
_OBJECTS = [
    "momentum",
    "the previous high",
    "the account",
    "resistance",
    "the next session",
    "a false signal",
    "liquidity",
    "the strike price",
    "institutional buying",
    "the fifty day average",
    "profit targets",
    "the closing price",
    "interest rates",
    "the gap",
    "a reversal",
    "overbought readings",
]
_ENDINGS = [
    "on Friday",
    "before the news",
    "in a sideways market",
    "with low volume",
    "after lunch",
    "in most cases",
    "for swing traders",
    "near the bell",
    "at the weekly close",
    "when fear is high",
    "in this example",
    "over and over",
]


def sentences(count: int, seed: int | str) -> list[str]:
    """`count` different sentences of six to twelve words."""
    pick = random.Random(f"texts {seed}")
    found: dict[str, None] = {}
    while len(found) < count:
        parts = [pick.choice(each) for each in (_SUBJECTS, _VERBS, _OBJECTS, _ENDINGS)]
        if len(found) % 4 == 3:
            parts.append(f"take {pick.randrange(1, 1000)}")
        found[" ".join(parts)] = None
    return list(found)
