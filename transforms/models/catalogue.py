"""What weights there are: whence, under which licence, with which hash, and what they are good for.

A name is what ``--global_model`` or ``--local_model`` says. The tables hold what a publisher says,
with the place where it does; where nobody publishes a hash or a size, there is none here. CLIP's
long list is open_clip's own, and is asked for names that are not in ours. Thresholds are with the
models themselves: they hold for files of a user's too.
"""

import dataclasses
import difflib
import os
import re
from collections.abc import Iterator
from typing import Final, Optional

from transforms.models.spec import ModelError

HUB: Final = "https://huggingface.co"
# Licences that allow any use, commercial too, to whoever keeps their notices.
_ANY_USE: Final = frozenset({"Apache-2.0", "BSD-3-Clause", "MIT"})
_PART: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class Source:
    """A file that holds weights.

    Attributes:
        file_name: in the cache.
        urls: where it can be had, the best first; each holds the same bytes.
        sha256: as published, or the first digits that are; empty where nobody does.
        sha256_source: where that is said.
        size_bytes: as published, in which it may be rounded; None where nobody says.
    """

    file_name: str
    urls: tuple[str, ...]
    sha256: str = ""
    sha256_source: str = ""
    size_bytes: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """Weights of one name.

    Attributes:
        name: as in ``--global_model`` or ``--local_model``; a part of a model of several files has
            a name of its own, ``MODEL:PART``.
        license: SPDX identifier, or the name that its publisher gives; ``unknown``.
        license_source: where that is said.
        use: what it is good for.
        files: any one of them will do; the first is preferred.
    """

    name: str
    license: str
    license_source: str
    use: str
    files: tuple[Source, ...]

    @property
    def any_use(self) -> bool:
        """Whether the licence allows every use."""
        return self.license in _ANY_USE

    @property
    def is_program(self) -> bool:
        """Whether it is TorchScript, which runs as a program."""
        return self.name.startswith("sscd")

    @property
    def folder(self) -> str:
        """Its folder in the cache, relative: the parts of its name."""
        return os.path.join(*re.split("[:/]", self.name))


def entries() -> Iterator[Entry]:
    """Yield the entries that ``beam-dedup models list`` shows, without open_clip's long list."""
    yield from map(_clip_entry, _CLIP)
    yield from _EFFICIENTNETS.values()
    yield from _SSCD.values()
    yield from _LOCALS.values()


def find(name: str) -> Entry:
    """Return the entry of a name.

    Args:
        name: as in ``Entry``; ``loftr`` alone is its outdoor weights, ``sscd`` its ``disc_mixup``.

    Raises:
        ModelError: there is none of that name, or open_clip is asked and is not installed.
    """
    name = _ALIASES.get(name, name)
    if name.startswith("clip:"):
        return _clip(name)
    for table in (_EFFICIENTNETS, _SSCD, _LOCALS):
        if name in table:
            return table[name]
    raise ModelError(f"there are no weights {name!r}; beam-dedup models list shows those there are")


def has(name: str) -> bool:
    """Tell whether a name is of weights other than CLIP's, and not of a user's file."""
    name = _ALIASES.get(name, name)
    return any(name in table for table in (_EFFICIENTNETS, _SSCD, _LOCALS))


def parts(name: str) -> list[Entry]:
    """Return the entries of all files that a model needs; see ``find``."""
    found = [entry for part, entry in _LOCALS.items() if part.startswith(f"{name}:")]
    return found if name not in _ALIASES and found else [find(name)]


# Names, where the Hugging Face hub holds them, and what they are good for. The hub repositories are
# open_clip's (pretrained.py); a test compares them. Those of OpenAI are taken from the hub alone:
# the files behind their own addresses are TorchScript, which is a program.
_CLIP: Final = {
    "clip:ViT-B-32/laion2b_s34b_b79k": (
        "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        "general, labels; small",
    ),
    "clip:ViT-B-32/datacomp_xl_s13b_b90k": (
        "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
        "general, labels; small",
    ),
    "clip:ViT-B-32/openai": ("timm/vit_base_patch32_clip_224.openai", "general, labels; small"),
    "clip:ViT-B-16/datacomp_xl_s13b_b90k": (
        "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
        "general, labels; finer patches at four times the cost",
    ),
    "clip:ViT-L-14/datacomp_xl_s13b_b90k": (
        "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
        "labels above all; for a GPU",
    ),
    "clip:ViT-L-14/openai": (
        "timm/vit_large_patch14_clip_224.openai",
        "labels above all; for a GPU",
    ),
    "clip:ViT-B-16-SigLIP/webli": ("timm/ViT-B-16-SigLIP", "general, but no labels"),
    "clip:ViT-B-32/metaclip_400m": (
        "timm/vit_base_patch32_clip_224.metaclip_400m",
        "general, labels; small",
    ),
    "clip:MobileCLIP-S1/datacompdr": ("apple/MobileCLIP-S1-OpenCLIP", "general, labels; for a CPU"),
}
# What the hub says of single files: digits and, rounded, size.
_HUB_FILES: Final = {
    ("timm/ViT-B-16-SigLIP", "open_clip_model.safetensors"): (
        "81942ea8c09b9e41963357cca5d2682118bf7eb7491c2ae51a28bc4f4f95b194",
        813_000_000,
    ),
}


def _clip_license(arch: str, tag: str, hub: str) -> tuple[str, str]:
    """Return the licence of CLIP weights and where it is said.

    The weights' first publisher counts, not a copy: the hub's copies of MetaCLIP say Apache-2.0.
    """
    if tag.startswith("metaclip"):
        return "CC-BY-NC-4.0", f"{HUB}/facebook/metaclip-h14-fullcc2.5b"
    if hub.startswith("apple/") or arch.startswith("MobileCLIP"):
        return "apple-amlr", f"{HUB}/apple/MobileCLIP-B-LT-OpenCLIP/discussions/3"
    if tag == "openai":
        return "MIT", "https://github.com/openai/CLIP/blob/main/LICENSE"
    if hub.startswith("laion/"):
        return "MIT", f"{HUB}/{hub}"
    if tag == "webli":
        return "Apache-2.0", f"{HUB}/{hub}"
    if arch.startswith("EVA"):
        return "MIT", "https://github.com/baaivision/EVA/blob/master/LICENSE"
    if tag.startswith(("laion400m", "laion2b", "yfcc15m", "cc12m")) and hub.startswith("timm/"):
        return "MIT", "https://github.com/mlfoundations/open_clip/blob/main/LICENSE"
    return "unknown", ""


def _hub_source(hub: str, file_name: str) -> Source:
    digits, size = _HUB_FILES.get((hub, file_name), ("", None))
    said = f"{HUB}/{hub}/blob/main/{file_name}" if digits else ""
    return Source(file_name, (f"{HUB}/{hub}/resolve/main/{file_name}",), digits, said, size)


def _clip_sources(hub: str, url: str) -> tuple[Source, ...]:
    """Return the files of CLIP weights, safetensors before pickles.

    Args:
        hub: ``owner/repository``, maybe ``owner/repository/file``; empty for none.
        url: another address; empty for none.
    """
    found = []
    if hub:
        owner, repository, *rest = hub.strip("/").split("/")
        hub = f"{owner}/{repository}"
        if rest:
            names = (f"{os.path.splitext(rest[0])[0]}.safetensors", rest[0])
        else:
            # https://github.com/mlfoundations/open_clip/blob/main/src/open_clip/constants.py
            names = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
        found = [_hub_source(hub, file_name) for file_name in dict.fromkeys(names)]
    if url and "openaipublic" not in url:
        file_name = url.rpartition("/")[2]
        # open_clip's releases put the first eight digits into the name (its pretrained.py).
        digits = re.search(r"-([0-9a-f]{8})\.\w+$", file_name)
        said = "the file's name" if digits and "mlfoundations" in url else ""
        found.append(Source(file_name, (url,), digits[1] if digits and said else "", said))
    return tuple(found)


def _clip_entry(name: str, hub: str = "", url: str = "", use: str = "") -> Entry:
    if name in _CLIP:
        hub, use = _CLIP[name]
    arch, tag = name.removeprefix("clip:").split("/")
    known = _clip_license(arch, tag, hub)
    return Entry(
        name,
        *known,
        use or "see open_clip's table of results",
        _clip_sources(hub, url),
    )


def _clip(name: str) -> Entry:
    """Return CLIP weights of our list, or of open_clip's."""
    arch, _, tag = name.removeprefix("clip:").partition("/")
    tag = tag.lower().replace("-", "_")  # as open_clip reads it
    name = f"clip:{arch}/{tag}"
    if name in _CLIP:
        return _clip_entry(name)
    if not (_PART.fullmatch(arch) and _PART.fullmatch(tag)):
        raise ModelError(
            f"there are no weights {name!r}: CLIP is named clip:ARCH/PRETRAINED, as in "
            "clip:ViT-B-32/laion2b_s34b_b79k"
        )
    try:
        from open_clip import pretrained
    except ImportError as error:
        raise ModelError(
            f"weights {name!r} are looked for in open_clip's table, and open_clip is missing: "
            "pip install -c requirements.txt '.[models]'"
        ) from error
    config = pretrained.get_pretrained_cfg(arch, tag)
    if not config:
        tags = pretrained.list_pretrained_tags_by_model(arch)
        near = difflib.get_close_matches(tag, tags, n=3, cutoff=0.4) or tags[:3]
        known = f"of {arch} it knows {', '.join(near)}" if tags else f"nor any of {arch!r}"
        raise ModelError(f"open_clip knows no weights {arch}/{tag}; {known}")
    return _clip_entry(name, config.get("hf_hub", ""), config.get("url", ""))


# torchvision/models/efficientnet.py: address, and size in MiB to three decimals; a test compares
# them. The digits at a name's end are the first of the SHA-256: https://docs.pytorch.org/docs/stable/
# hub.html#torch.hub.load_state_dict_from_url
_TORCHVISION: Final = {
    "efficientnet_b0": ("efficientnet_b0_rwightman-7f5810bc.pth", 20.451),
    "efficientnet_b1": ("efficientnet_b1-c27df63c.pth", 30.136),
    "efficientnet_b2": ("efficientnet_b2_rwightman-c35c1473.pth", 35.174),
    "efficientnet_b3": ("efficientnet_b3_rwightman-b3899882.pth", 47.184),
    "efficientnet_b4": ("efficientnet_b4_rwightman-23ab8bcd.pth", 74.489),
    "efficientnet_b5": ("efficientnet_b5_lukemelas-1a07897c.pth", 116.864),
    "efficientnet_b6": ("efficientnet_b6_lukemelas-24a108a5.pth", 165.362),
    "efficientnet_b7": ("efficientnet_b7_lukemelas-c5b4e57e.pth", 254.675),
}
_EFFICIENTNETS: Final = {
    name: Entry(
        name,
        "BSD-3-Clause",
        "https://github.com/pytorch/vision/blob/main/LICENSE",
        "small and quick; knows objects of ImageNet" if name < "efficientnet_b4" else "large",
        (
            Source(
                file_name,
                (f"https://download.pytorch.org/models/{file_name}",),
                file_name[-12:-4],
                "the file's name",
                round(mebibytes * 2**20),
            ),
        ),
    )
    for name, (file_name, mebibytes) in _TORCHVISION.items()
}

_SSCD_README: Final = "https://github.com/facebookresearch/sscd-copy-detection"
_SSCD_FILES: Final = {
    "disc_mixup": "copies among photographs; its authors' first choice",
    "disc_large": "as disc_mixup, more exact at more cost; 1,024 dimensions",
    "disc_advanced": "copies among photographs, without mixup",
    "disc_blur": "copies among photographs, trained with blur alone",
    "imagenet_mixup": "as disc_mixup, trained on ImageNet",
    "imagenet_advanced": "as disc_advanced, trained on ImageNet",
    "imagenet_blur": "as disc_blur, trained on ImageNet",
}
_SSCD: Final = {
    f"sscd:{kind}": Entry(
        f"sscd:{kind}",
        "MIT",  # since 2022-08; before it was CC-BY-NC-4.0
        f"{_SSCD_README}/blob/main/LICENSE",
        use,
        (
            Source(
                f"sscd_{kind}.torchscript.pt",
                (f"https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_{kind}.torchscript.pt",),
            ),
        ),
    )
    for kind, use in _SSCD_FILES.items()
}


def _kornia(
    repository: str,
    file_name: str,
    other: str,
    sha256: str = "",
    commit: str = "",
    size_bytes: Optional[int] = None,
) -> tuple[Source, ...]:
    """Return a file of kornia's repositories on the hub, and what their commit says of it."""
    hub = f"{HUB}/kornia/{repository}"
    said = f"{hub}/commit/{commit}" if commit else ""
    urls = (f"{hub}/resolve/main/{file_name}", other)
    return (Source(file_name, urls, sha256, said, size_bytes),)


_LOFTR: Final = ("Apache-2.0", "https://github.com/zju3dv/LoFTR/blob/master/LICENSE")
_CVUT: Final = "https://cmp.felk.cvut.cz/~mishkdmy/models"
# The addresses are kornia's (feature/loftr/loftr.py, feature/disk/disk.py, feature/lightglue.py);
# a test compares them.
_LOCALS: Final = {
    entry.name: entry
    for entry in (
        Entry(
            "loftr:outdoor",
            *_LOFTR,
            "pairs of photographs, buildings and places above all",
            _kornia(
                "loftr",
                "loftr_outdoor.ckpt",
                f"{_CVUT}/loftr_outdoor.ckpt",
                "21f5bec5968178e8bc8b7633441836fe5de4f47d861dd2cd7dc38e271b0479ec",
                "ccc5764ce31dc3f36622379a598f7bea239e2e44",
                46_341_978,
            ),
        ),
        Entry(
            "loftr:indoor_new",
            *_LOFTR,
            "pairs of photographs of rooms",
            _kornia("loftr", "loftr_indoor_ds_new.ckpt", f"{_CVUT}/loftr_indoor_ds_new.ckpt"),
        ),
        Entry(
            "loftr:indoor",
            *_LOFTR,
            "as indoor_new, as first published",
            _kornia("loftr", "loftr_indoor.ckpt", f"{_CVUT}/loftr_indoor.ckpt"),
        ),
        Entry(
            "disk_lightglue:disk",
            "Apache-2.0",
            "https://github.com/cvlab-epfl/disk/blob/master/LICENSE",
            "points for disk_lightglue",
            _kornia(
                "disk",
                "depth-save.pth",
                "https://raw.githubusercontent.com/cvlab-epfl/disk/master/depth-save.pth",
                "9c2ee4ded238892dfa51569941372601e35e4a74aa6f84ea80053d2ab1c07abe",
                "ea43e98f3a0c221d64112fba89ce89b40cc467eb",
                4_375_832,
            ),
        ),
        Entry(
            "disk_lightglue:lightglue",
            "Apache-2.0",
            f"{HUB}/ETH-CVG/lightglue_disk",
            "matches for disk_lightglue",
            _kornia(
                "lightglue",
                "disk_lightglue.pth",
                "https://github.com/cvg/LightGlue/releases/download/v0.1_arxiv/disk_lightglue.pth",
            ),
        ),
    )
}
# What a model's bare name means where it is of several entries, one of which it takes.
_ALIASES: Final = {"loftr": "loftr:outdoor", "sscd": "sscd:disc_mixup"}
