"""A permutation test on ranks: whether the values of one sample tend to be larger than those of another.

The test of Wilcoxon, Mann and Whitney, with equal values at their mean rank, exact for small samples. A start that took twice as
long because of something else counts as one large rank, however long it took.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, erfc, sqrt
from typing import Final

_EXACT: Final = 40
"""How many values both samples may have together for the exact distribution; it is close to normal far below."""


def probability_of_larger(smaller: Sequence[float], larger: Sequence[float]) -> float:
    """Return the probability that `larger` looks at least as much larger than `smaller` if both are of one kind.

    Args:
        smaller: One sample.
        larger: The other one.

    Raises:
        ValueError: A sample is empty.
    """
    if not smaller or not larger:
        raise ValueError("a sample has no values")
    ranks = _doubled_ranks([*smaller, *larger])
    observed = sum(ranks[len(smaller) :])
    if len(ranks) <= _EXACT:
        return _exact(ranks, len(larger), observed)
    mean = len(larger) * sum(ranks) / len(ranks)
    scatter = sum((rank - sum(ranks) / len(ranks)) ** 2 for rank in ranks) / (len(ranks) - 1)
    deviation = sqrt(scatter * len(smaller) * len(larger) / len(ranks))
    return 1.0 if not deviation else erfc((observed - 1 - mean) / deviation / sqrt(2)) / 2


def smallest_probability(first: int, second: int) -> float:
    """Return the smallest probability that samples with this many values can have: all of one are larger."""
    return 1 / comb(first + second, second)


def _doubled_ranks(values: Sequence[float]) -> list[int]:
    """Return twice the rank of each value; equal values have the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0] * len(values)
    at = 0
    while at < len(order):
        end = at
        while end < len(order) and values[order[end]] == values[order[at]]:
            end += 1
        for each in order[at:end]:
            ranks[each] = at + end + 1
        at = end
    return ranks


def _exact(ranks: Sequence[int], chosen: int, observed: int) -> float:
    """Return the share of all choices of `chosen` ranks whose sum is at least `observed`."""
    ways: list[dict[int, int]] = [{0: 1}, *({} for _ in range(chosen))]
    for rank in ranks:
        for number in range(chosen, 0, -1):
            into = ways[number]
            for total, count in ways[number - 1].items():
                into[total + rank] = into.get(total + rank, 0) + count
    counts = ways[chosen]
    return sum(count for total, count in counts.items() if total >= observed) / comb(len(ranks), chosen)
