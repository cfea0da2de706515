"""What the networks of PyTorch have in common."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transforms.imaging.preparation import Preparation  # noqa: E402
from transforms.models.torch_network import TorchNetwork  # noqa: E402


class _Means(torch.nn.Module):
    """Gives the mean of each channel, and remembers how many pictures came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(batch))
        return batch.mean(dim=(2, 3))


@pytest.mark.parametrize(
    ("side", "count", "calls"),
    [(224, 70, [32, 32, 6]), (600, 10, [4, 4, 2]), (3000, 2, [1, 1]), (224, 3, [3])],
)
def test_a_call_on_a_cpu_takes_no_more_pixels_than_memory_is_for(
    side: int, count: int, calls: list[int]
) -> None:
    means = _Means()
    plain = Preparation(side, side, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    network = TorchNetwork(means, plain, "cpu")
    colours = np.random.default_rng(1).integers(0, 256, (count, 1, 1, 3), np.uint8)
    vectors = network(np.broadcast_to(colours, (count, side, side, 3)).copy())
    assert means.seen == calls
    np.testing.assert_allclose(vectors, colours[:, 0, 0] / 255.0, atol=1e-5)
