from pathlib import Path

import limit
import numpy as np
import pytest

from tests.pictures import photo


def test_haar_gives_four_levels_and_the_mean() -> None:
    pixels = np.random.default_rng(1).uniform(0, 255, (64, 64)).astype(np.float32)
    bands = limit.haar(pixels)
    sides = [side for side in (32, 16, 8, 4) for _ in range(3)]
    assert [band.shape for band in bands] == [(side, side) for side in (*sides, 4)]
    means = pixels.reshape(4, 16, 4, 16).mean(axis=(1, 3))
    np.testing.assert_allclose(bands[-1], means, rtol=1e-5)


def test_haar_bands_answer_to_their_direction() -> None:
    stripes = np.tile(np.array([1.0, 3.0], np.float32), (64, 32))
    across, down, both = limit.haar(stripes)[:3]
    assert (np.unique(across), np.unique(down), np.unique(both)) == ([-4.0], [0.0], [0.0])


def test_files_that_cannot_be_decoded_are_counted(tmp_path: Path) -> None:
    photo(1).save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "c.jpg").write_bytes(b"")
    found = limit.measure(sorted(tmp_path.iterdir()))
    assert (found.images, found.undecoded) == (3, 2)
    assert limit.Limit(4, 0, 0.002).ms_an_image == pytest.approx(0.5)
