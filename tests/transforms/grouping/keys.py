"""Made-up wavelet keys for tests."""

import numpy as np

from transforms.grouping.bands import compact
from transforms.imaging.wavelet import KEY_BITS, ORIENTATION_TABLE, wavelet_keys_batch


def random_keys(count: int, seed: int, levels: int = 256) -> np.ndarray:
    """Return the keys, uint8 [n, 8, 32], of random fields; few levels give coefficients of zero."""
    random = np.random.default_rng(seed)
    cells = random.integers(0, levels, (count, 16, 16), dtype=np.uint8)
    return wavelet_keys_batch(cells.repeat(4, axis=1).repeat(4, axis=2))[0]


def compact_keys(keys: np.ndarray) -> np.ndarray:
    """Return the compact form, uint8 [n, 64], of keys in the eight orientations [n, 8, 32]."""
    signs = np.zeros((len(keys), 2 * KEY_BITS), np.bool_)
    signs[:, ORIENTATION_TABLE] = np.unpackbits(keys, axis=2)
    return compact(signs)


def signs_of(plain: np.ndarray) -> np.ndarray:
    """Return the compact form, uint8 [n, 64], of keys in orbit order that have no zeros."""
    return np.concatenate([plain, ~plain], axis=1)


def flipped(plain: np.ndarray, flips: int, seed: int) -> np.ndarray:
    """Return the keys, uint8 [n, 32], with that many bits of each flipped."""
    random = np.random.default_rng(seed)
    order = random.random((len(plain), 256)).argsort(axis=1)
    return plain ^ np.packbits(order < flips, axis=1)
