"""Package metadata of beam-dedup; exact versions are in requirements.txt, used as constraints."""

import re
from pathlib import Path

from setuptools import find_packages, setup

_ROOT = Path(__file__).resolve().parent


def _version() -> str:
    """Return the version that ``beam_dedup/__init__.py`` states, without importing it."""
    text = (_ROOT / "beam_dedup" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('beam_dedup/__init__.py has no line __version__ = "..."')
    return match.group(1)


def _readme() -> str:
    path = _ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.exists() else ""


_MODELS = [
    "torch>=2.6",
    "torchvision>=0.21",
    "open_clip_torch>=3.0",
    "kornia>=0.8",
    "onnxruntime>=1.22",
    "safetensors>=0.5",
]
_AZURE = ["azure-storage-blob>=12.31", "azure-identity>=1.19", "tenacity>=9.0"]
_TEST = [
    "hypothesis>=6.100",
    "import-linter>=2.1",
    "mypy>=1.13",
    "onnx>=1.18",
    "onnxscript>=0.5",
    "pytest>=8.3",
    "pywavelets>=1.8",
    "ruff>=0.8",
]

setup(
    name="beam-dedup",
    version=_version(),
    description="Finds copies of images, exact and near, with an Apache Beam pipeline",
    long_description=_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["beam_dedup", "beam_dedup.*", "transforms", "transforms.*"]),
    package_data={"beam_dedup": ["py.typed"], "transforms": ["py.typed"]},
    zip_safe=False,
    install_requires=[
        "apache-beam>=2.77,<3",
        "isal>=1.9",
        "numpy>=2.0,<3",
        "opencv-python-headless>=4.10",
        "pi-heif>=1.0",
        "pillow>=12.1.1,<13",
        "pyarrow>=18",
        "requests>=2.32.4",
        "rich>=13.9",
        "scipy>=1.14",
        "simplejpeg>=1.9",
    ],
    extras_require={"models": _MODELS, "azure": _AZURE, "test": _TEST},
    entry_points={"console_scripts": ["beam-dedup = beam_dedup.cli:program"]},
    classifiers=[
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Graphics",
        "Typing :: Typed",
    ],
)
