# SPDX-License-Identifier: Apache-2.0
"""Statistics of times, the same as those of `tare bench` (tool/base/stopwatch.c)."""

import math

CONFIDENCE, NOISE_LIMIT = 0.95, 0.2


def quantile(times, fraction):
    times = sorted(times)
    place = fraction * (len(times) - 1)
    below = int(place)
    above = min(below + 1, len(times) - 1)
    return times[below] + (place - below) * (times[above] - times[below])


def interval(times):
    """A confidence interval of the median by order statistics; (None, None) of fewer than six times."""
    n, covered = len(times), 0.0
    for k in range(n // 2, 0, -1):
        covered = 1 - 2 * sum(math.comb(n, below) for below in range(k)) / 2**n
        if covered >= CONFIDENCE:
            return sorted(times)[k - 1], sorted(times)[n - k]
    return None, None


def figures(times):
    low, high = interval(times)
    return {
        "median_ms": quantile(times, 0.5),
        "p20_ms": quantile(times, 0.2),
        "p80_ms": quantile(times, 0.8),
        "median_low_ms": low,
        "median_high_ms": high,
    }


def relative(times, yardstick):
    """Times over the yardstick's in the same round."""
    ratios = [time / other for time, other in zip(times, yardstick)]
    low, high = interval(ratios)
    return {"median": quantile(ratios, 0.5), "low": low, "high": high}


def noise(times):
    """How far apart the times of one thing lie, and whether times of the same rounds can be trusted."""
    median = quantile(times, 0.5)
    known = len(times) > 1 and median > 0
    spread = (quantile(times, 0.8) - quantile(times, 0.2)) / median if known else None
    return {"spread": spread, "limit": NOISE_LIMIT, "trusted": known and spread <= NOISE_LIMIT}
