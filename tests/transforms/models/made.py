"""Small networks with seeded random weights, saved as the files that users name.

Each maker writes into a folder and returns the value for ``--global_model``.
"""

import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file

# One of open_clip's architectures, the smallest that is quick on a CPU: 22.6 M parameters in the
# tower for images, 10 ms a picture, vectors of 256.
CLIP = "ViT-S-32-alt"
CLIP_DIMENSIONS = 256
SIDE = 64  # of what the TorchScript and ONNX networks take, pixels
DIMENSIONS = 48  # of what they give


def make_clip(folder: Path, architecture: str = CLIP, *, text: bool = True, seed: int = 0) -> str:
    """Write a CLIP's weights, without those of its texts if they are not wanted."""
    import open_clip

    torch.manual_seed(seed)
    model = open_clip.create_model(architecture, load_weights=False)
    state = {
        # Half precision, as many are published; what is not written need not be hashed.
        name: tensor.half().contiguous()
        for name, tensor in model.state_dict().items()
        if text or name.startswith("visual.")
    }
    path = folder / f"{architecture}-{seed}{'' if text else '-image'}.safetensors"
    save_file(state, path)
    return f"clip:{architecture}/{path}"


def make_efficientnet(folder: Path, size: int = 0, *, seed: int = 0) -> str:
    """Write an EfficientNet's weights as torchvision does, its classifier too."""
    from torchvision.models import get_model

    torch.manual_seed(seed)
    path = folder / f"efficientnet_b{size}-{seed}.pth"
    torch.save(get_model(f"efficientnet_b{size}", weights=None).state_dict(), path)
    return f"efficientnet_b{size}:{path}"


def small_network(seed: int = 0, dimensions: int = DIMENSIONS) -> torch.nn.Module:
    """Return a network of [n, 3, s, s] to [n, d] for any s from 16 on."""
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 8, 8),
        torch.nn.GELU(),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(96, dimensions),
    ).eval()


def make_torchscript(
    folder: Path, family: str = "torchscript", *, network: torch.nn.Module | None = None
) -> str:
    """Write a TorchScript file; ``family`` is torchscript or sscd."""
    path = folder / f"{family}.pt"
    with warnings.catch_warnings():
        # PyTorch would have new programs made by torch.export; the published ones are TorchScript.
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        torch.jit.save(torch.jit.script(network or small_network()), path)
    return f"{family}:{path}"


def make_onnx(folder: Path, *, network: torch.nn.Module | None = None, batch: int = 0) -> str:
    """Write an ONNX file that takes batches of ``batch`` pictures; 0 for any number."""
    path = folder / ("network.onnx" if not batch else f"network-of-{batch}.onnx")
    torch.onnx.export(
        (network or small_network()).eval(),
        (torch.zeros(batch or 2, 3, SIDE, SIDE),),
        path,
        dynamo=True,
        external_data=False,
        dynamic_shapes=None if batch else ({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    return f"onnx:{path}"


def make_shapes(folder: Path, architecture: str) -> Path:
    """Write zeros in the shapes of a CLIP's tower for images, a few kilobytes of any of them."""
    from transforms.models.clip import _tower
    from transforms.models.torch_network import build

    tower = build(lambda: _tower(architecture))
    state = {
        f"visual.{name}": torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for name, tensor in tower.state_dict().items()
    }
    path = folder / f"{architecture}.pt"
    torch.save(state, path)
    return path
