"""Numbers of several runs as distributions: medians, their intervals, and whether two samples come from one distribution. Pure.

Of few runs no rank test can say anything (of three and one the least p is 0.5), so below RANKED values a side Student's t is used, with
the variance of both sides pooled; with one value on a side that is the prediction interval of the other. From RANKED values a side on it is
the test of Mann and Whitney ("On a Test of Whether one of Two Random Variables is Stochastically Larger than the Other", Annals of
Mathematical Statistics 18(1), 1947), exact where no two values are the same.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

RANKED = 8
"""Values on either side from which on ranks are compared."""
LEVEL = 0.05
"""The probability with which a replay of what has not changed is called different anyhow, by all of its tests together."""
CONFIDENCE = 0.95

MANN_WHITNEY, STUDENT, CONSTANT = "Mann-Whitney U", "Student's t", "constant"


def p_value(old: Sequence[float], new: Sequence[float], step: float) -> tuple[str, float]:
    """The name of the test and its p, two-sided. step: what the last printed digit is worth, which spreads values, too."""
    if min(len(old), len(new)) >= RANKED:
        return MANN_WHITNEY, mann_whitney(old, new)
    return STUDENT, student(old, new, step)


def mann_whitney(old: Sequence[float], new: Sequence[float]) -> float:
    """p that values so far apart come from one distribution, two-sided."""
    n, m = len(old), len(new)
    values = sorted([*old, *new])
    ties = [values.count(value) for value in set(values)]
    twice = sum((value > other) * 2 + (value == other) for value in old for other in new)
    if len(ties) == n + m:
        u = min(twice // 2, n * m - twice // 2)
        counts = _u_counts(n, m)
        return min(1.0, 2 * sum(counts[: u + 1]) / math.comb(n + m, n))
    total = n + m
    spread = n * m / 12 * (total + 1 - sum(tie**3 - tie for tie in ties) / (total * (total - 1)))
    if spread <= 0:
        return 1.0
    z = max(abs(twice / 2 - n * m / 2) - 0.5, 0) / math.sqrt(spread)
    return math.erfc(z / math.sqrt(2))


def student(old: Sequence[float], new: Sequence[float], step: float = 0.0) -> float:
    """p of Student's t with pooled variance, two-sided. One side needs two values or more."""
    n, m = len(old), len(new)
    freedom = n + m - 2
    if freedom < 1:
        raise ValueError("at least three values")
    means = statistics.fmean(old), statistics.fmean(new)
    squares = sum((value - mean) ** 2 for values, mean in ((old, means[0]), (new, means[1])) for value in values)
    # rounding spreads a value evenly over one step
    variance = max(squares / freedom, step**2 / 12)
    if variance == 0:
        return 1.0 if means[0] == means[1] else 0.0
    t = (means[0] - means[1]) / math.sqrt(variance * (1 / n + 1 / m))
    return _student_tail(t, freedom)


def interval(values: Sequence[float]) -> tuple[float, float, str]:
    """Lowest and highest of the 95 % interval of the median, by order statistics; of less than six values, their range."""
    ordered = sorted(values)
    n = len(ordered)
    rank, outside = -1, 0.0
    while rank + 1 < n // 2:
        outside += 2 * math.comb(n, rank + 1) * 0.5**n
        if outside > 1 - CONFIDENCE:
            break
        rank += 1
    if rank < 0:
        return ordered[0], ordered[-1], "range"
    return ordered[rank], ordered[n - 1 - rank], "95 % interval"


def rejected(ps: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which of many tests reject, so that all together err with this probability (Holm 1979)."""
    result = [False] * len(ps)
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda index: ps[index])):
        if ps[index] > level / (len(ps) - rank):
            break
        result[index] = True
    return result


def _u_counts(n: int, m: int) -> list[int]:
    """In how many orders of n and m values U is 0, 1, …: the coefficients of a Gaussian binomial."""
    counts = [1] + [0] * (n * m)
    for i in range(1, n + 1):
        for u in range(n * m, m + i - 1, -1):
            counts[u] -= counts[u - m - i]
        for u in range(i, n * m + 1):
            counts[u] += counts[u - i]
    return counts


def _student_tail(t: float, freedom: int) -> float:
    """The probability that |T| is at least |t|."""
    if math.isinf(t):
        return 0.0
    return _beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Abramowitz & Stegun 26.5.8)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    # evaluated from its end; 200 terms are far more than x below the mean needs
    fraction = 1.0
    for k in range(200, 0, -1):
        i = k // 2
        if k % 2 == 0:
            d = i * (b - i) * x / ((a + 2 * i - 1) * (a + 2 * i))
        else:
            d = -(a + i) * (a + b + i) * x / ((a + 2 * i) * (a + 2 * i + 1))
        fraction = 1 + d / fraction
    return front / fraction
