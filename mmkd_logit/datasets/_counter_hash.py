"""Random bits that belong to (seed, epoch, sample), by a hash instead of a stream.

The definition is frozen: pictures of runs that are to be repeated hang on it. It is the finaliser
of SplitMix64 (G. L. Steele Jr., D. Lea, C. H. Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014; constants of D. Stafford's Mix13), which absorbs the three words one
after another and is then read as SplitMix64 is.
"""

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)
_HALF, _TO_53 = np.uint64(32), np.uint64(11)


def counter_bits(words: np.ndarray, count: int) -> np.ndarray:
    """Return random bits that depend on the words alone.

    Args:
        words: W integers for each of N samples (W, N), such as seed, epoch and sample; any int64.
        count: How many numbers for each.

    Returns:
        uint64 (count, N), uniform and independent in every way that matters here.
    """
    state = np.zeros(words.shape[1], dtype=np.uint64)
    for word in words.astype(np.uint64):
        state = _mix(state + _STEP + word)
    steps = _STEP * np.arange(1, count + 1, dtype=np.uint64)
    return _mix(state + steps[:, None])


def _mix(bits: np.ndarray) -> np.ndarray:
    for shift, factor in zip(_SHIFTS, _FACTORS, strict=False):
        bits = (bits ^ (bits >> shift)) * factor
    return bits ^ (bits >> _SHIFTS[2])


def below(bits: np.ndarray, number: int) -> np.ndarray:
    """Turn random bits into integers in ``[0, number)``; biased by less than number / 2**32.

    Args:
        bits: uint64.
        number: From 1 to 2**31.
    """
    return (((bits >> _HALF) * np.uint64(number)) >> _HALF).astype(np.int64)


def unit(bits: np.ndarray) -> np.ndarray:
    """Turn random bits into float64 in [0, 1).

    Args:
        bits: uint64.
    """
    return (bits >> _TO_53).astype(np.float64) * 2.0**-53
