"""The catalogue: its tables against those of the libraries, licences, hashes and folders."""

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest

from transforms.models import catalogue
from transforms.models.catalogue import Source, entries, find, parts
from transforms.models.spec import ModelError

_ENTRIES = list(entries())


def test_names_and_places_are_distinct() -> None:
    assert len({entry.name for entry in _ENTRIES}) == len(_ENTRIES)
    places = {(entry.folder, one.file_name) for entry in _ENTRIES for one in entry.files}
    assert len(places) == sum(len(entry.files) for entry in _ENTRIES)


@pytest.mark.parametrize("entry", _ENTRIES, ids=lambda entry: entry.name)
def test_an_entry_says_what_is_needed_and_invents_nothing(entry: catalogue.Entry) -> None:
    assert find(entry.name) == entry
    assert entry.license != "unknown"
    assert entry.license_source.startswith("https://")
    assert entry.use
    assert ".." not in PurePosixPath(entry.folder).parts
    assert entry.files
    for one in entry.files:
        assert one.urls
        assert all(urlsplit(url).scheme == "https" for url in one.urls)
        # A hash without a place where it is published would be our own.
        assert bool(one.sha256) == bool(one.sha256_source)
        assert re.fullmatch(r"([0-9a-f]{64}|[0-9a-f]{8})?", one.sha256)


@pytest.mark.parametrize(
    ("name", "license_", "any_use"),
    [
        ("clip:ViT-B-32/laion2b_s34b_b79k", "MIT", True),
        ("clip:ViT-B-32/openai", "MIT", True),
        ("clip:ViT-B-16-SigLIP/webli", "Apache-2.0", True),
        ("clip:ViT-B-32/metaclip_400m", "CC-BY-NC-4.0", False),
        ("clip:MobileCLIP-S1/datacompdr", "apple-amlr", False),
        ("efficientnet_b7", "BSD-3-Clause", True),
        ("sscd", "MIT", True),
        ("loftr", "Apache-2.0", True),
    ],
)
def test_licences(name: str, license_: str, any_use: bool) -> None:
    assert (find(name).license, find(name).any_use) == (license_, any_use)


def test_bare_names_and_models_of_several_files() -> None:
    assert find("sscd").name == "sscd:disc_mixup"
    assert find("loftr").name == "loftr:outdoor"
    assert all(map(catalogue.has, ("sscd", "sscd:disc_large", "loftr:indoor", "efficientnet_b3")))
    assert not any(map(catalogue.has, ("sscd:file.pt", "loftr:file.ckpt", "disk_lightglue", "")))
    assert [entry.name for entry in parts("loftr")] == ["loftr:outdoor"]
    assert [entry.name for entry in parts("efficientnet_b0")] == ["efficientnet_b0"]
    assert [entry.name for entry in parts("disk_lightglue")] == [
        "disk_lightglue:disk",
        "disk_lightglue:lightglue",
    ]
    assert [entry.name for entry in parts("disk_lightglue:disk")] == ["disk_lightglue:disk"]


@pytest.mark.parametrize("name", ["", "nothing", "loftr:x", "sscd:", "clip", "clip:", "clip:a",
                                  "clip:../x", "clip:a/b/c", "clip:/etc/x", "clip:a/..",
                                  "descriptor"])  # fmt: skip
def test_a_name_that_is_none_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        find(name)
    assert "\n" not in str(caught.value)


def test_clip_names_are_read_as_open_clip_reads_them() -> None:
    assert find("clip:ViT-B-32/laion2B-s34B-b79K") == find("clip:ViT-B-32/laion2b_s34b_b79k")


def test_clip_files_prefer_safetensors_and_leave_programs_out() -> None:
    assert catalogue._clip_sources("owner/model/", "") == (
        Source(
            "open_clip_model.safetensors",
            ("https://huggingface.co/owner/model/resolve/main/open_clip_model.safetensors",),
        ),
        Source(
            "open_clip_pytorch_model.bin",
            ("https://huggingface.co/owner/model/resolve/main/open_clip_pytorch_model.bin",),
        ),
    )
    names = [one.file_name for one in catalogue._clip_sources("owner/model/weights.bin", "")]
    assert names == ["weights.safetensors", "weights.bin"]
    release = "https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/"
    (one,) = catalogue._clip_sources("", f"{release}vit_b_32-laion2b_e16-af8dbd0c.pth")
    assert (one.sha256, one.sha256_source) == ("af8dbd0c", "the file's name")
    # These are TorchScript.
    assert catalogue._clip_sources("", "https://openaipublic.azureedge.net/clip/x/RN50.pt") == ()


def test_our_clip_table_is_open_clips() -> None:
    pretrained = pytest.importorskip("open_clip.pretrained")
    for name, (hub, _) in catalogue._CLIP.items():
        arch, tag = name.removeprefix("clip:").split("/")
        assert pretrained.get_pretrained_cfg(arch, tag)["hf_hub"].strip("/") == hub


def test_every_weight_of_open_clip_has_a_file_and_a_licence_or_none() -> None:
    pretrained = pytest.importorskip("open_clip.pretrained")
    listed = pretrained.list_pretrained()
    assert len(listed) > 100
    for arch, tag in listed:
        entry = find(f"clip:{arch}/{tag}")
        assert entry.name == f"clip:{arch}/{tag}"
        assert entry.files
        assert not any("openaipublic" in url for one in entry.files for url in one.urls)
        # Of the hub's owners, Apple's and Meta's CLIP weights are for research alone.
        if "apple/" in str(entry.files) or "MobileCLIP" in arch or "metaclip" in tag:
            assert not entry.any_use


def test_a_tag_that_open_clip_does_not_know_is_refused_with_near_ones() -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(ModelError, match=r"of ViT-B-32 it knows laion2b_s34b_b79k"):
        find("clip:ViT-B-32/laion2b_s34b")
    with pytest.raises(ModelError, match=r"open_clip knows no weights ViT-Z/x; nor any of 'ViT-Z'"):
        find("clip:ViT-Z/x")


def test_our_efficientnet_table_is_torchvisions() -> None:
    models = pytest.importorskip("torchvision.models")
    for name in catalogue._EFFICIENTNETS:
        theirs = models.get_model_weights(name).DEFAULT
        (ours,) = find(name).files
        assert ours.urls == (theirs.url,)
        assert ours.size_bytes == round(theirs.meta["_file_size"] * 2**20)
        assert theirs.url.endswith(f"-{ours.sha256}.pth")


def test_our_addresses_of_matchers_are_kornias() -> None:
    feature = pytest.importorskip("kornia.feature")
    from kornia.feature.disk import disk
    from kornia.feature.loftr import loftr

    for kind in ("outdoor", "indoor_new", "indoor"):
        assert list(find(f"loftr:{kind}").files[0].urls) == loftr.urls[kind]
    assert list(find("disk_lightglue:disk").files[0].urls) == disk.urls["depth"]
    url = feature.LightGlue.url.format(feature.LightGlue.version, "disk")
    assert find("disk_lightglue:lightglue").files[0].urls[1] == url
