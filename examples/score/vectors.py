"""What training and scoring make of a vector: one place, so that a model is served what it was trained on."""

import numpy as np

NO_VALUE = -1.0  # no logarithm of a feature, none of which is negative, is that small


def prepare(features):
    """Turns features, a row per vector and NaN for null, into a model's input.

    Features span many orders of magnitude (microseconds to minutes, bytes to gigabytes): a forest cuts their
    logarithms more evenly than themselves.
    """
    return np.nan_to_num(np.log1p(features), nan=NO_VALUE).astype(np.float32)
