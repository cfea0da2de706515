"""``beam-dedup models``: what is printed, the exit codes, and what the cache holds afterwards."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from beam_dedup import cli
from beam_dedup.models import download
from tests.beam_dedup.models.server import Answer, Host
from transforms.models import catalogue
from transforms.models.spec import ModelError
from transforms.models.weights import Finder, Receipt

Capture = pytest.CaptureFixture[str]

_BODY = b"PK weights" * 1000
_SHA256 = hashlib.sha256(_BODY).hexdigest()
_SSCD = "sscd/disc_mixup/sscd_disc_mixup.torchscript.pt"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a cache that is empty, and let no library have one."""
    for name in ("TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("BEAM_DEDUP_MODELS", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _models(*words: str) -> int:
    return cli.main(["models", *words])


def _fetch(host: Host, name: str = "sscd", *words: str, path: str = "/sscd.pt") -> int:
    host.files[path] = _BODY
    return _models("fetch", name, f"--url={host.url(path)}", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lst"], "there is no command models 'lst'; did you mean list?"),
        (["fetch"], "the following arguments are required: NAME"),
        (["fetch", "nothing"], "there are no weights 'nothing'; beam-dedup models list"),
        (["fetch", "clip:../x"], "CLIP is named clip:ARCH/PRETRAINED"),
        (["fetch", "sscd", "--url=ftp://x/y"], "url must begin with http:// or https://"),
        (["fetch", "sscd", "--url=file:///etc/passwd"], "url must begin with http:// or https://"),
        (["fetch", "disk_lightglue", "--url=http://x/y"], "for one file, and 2 are: disk_light"),
        (["fetch", "sscd", "--sha256=xyz"], "sha256 must be 64 hex digits, not 'xyz'"),
        (
            ["labels", "--global_model=clip:x/y", "--labels=x", "--global_model_sha256=abc"],
            "global_model_sha256 must be 64 hex digits, not 'abc'",
        ),
        (["verify", "nothing"], "there are no weights 'nothing'; beam-dedup models list shows"),
        (["verify", "--model_cache=/nonexistent"], "there is no folder '/nonexistent'"),
        (["verify", "sscd", "--cache=/dev/null"], "there is no folder '/dev/null'"),
        (["list", "more"], "unrecognized arguments: more"),
    ],
)
def test_what_is_refused(words: list[str], message: str, capsys: Capture, cache: Path) -> None:
    assert _models(*words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("beam-dedup: refused: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not cache.exists()


def test_help_names_the_subcommands(capsys: Capture) -> None:
    assert _models("--help") == 0
    assert _models() == 2
    printed = capsys.readouterr()
    assert printed.out == printed.err
    for name in ("list", "fetch", "verify"):
        assert f"\n  {name} " in printed.out
        assert _models(name, "--help") == 0
        assert f"usage: beam-dedup models {name}" in capsys.readouterr().out


def test_weights_are_fetched_found_and_verified(host: Host, cache: Path, capsys: Capture) -> None:
    assert _fetch(host, "sscd", f"--sha256={_SHA256}") == 0
    path = cache / _SSCD
    line = f"sscd:disc_mixup  10.0 kB  sha256 {_SHA256}  {path}\n"
    assert capsys.readouterr() == (f"fetched {line}", "")
    found = Finder(str(cache)).known("sscd")
    assert (found.path, found.sha256, found.size_bytes, found.license) == (
        str(path),
        _SHA256,
        len(_BODY),
        "MIT",
    )
    assert _fetch(host) == 0
    assert capsys.readouterr().out == f"already there: {line}"
    assert len(host.asked) == 1
    assert _models("verify") == 0
    assert capsys.readouterr().out == f"ok         {path}\n"


def test_a_published_hash_is_checked(host: Host, cache: Path, capsys: Capture) -> None:
    name = "efficientnet_b0_rwightman-7f5810bc.pth"
    assert _fetch(host, "efficientnet_b0", path=f"/{name}") == 1
    assert f"the SHA-256 {_SHA256}, not 7f5810bc; it was thrown away" in capsys.readouterr().err
    assert not cache.exists()


def test_a_second_name_is_fetched_after_a_first_failed(
    host: Host, cache: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both files of disk_lightglue: the first address of the second has none, the other does."""
    files = {
        "disk_lightglue:disk": ("/none.pth",),
        "disk_lightglue:lightglue": ("/none.pth", "/lightglue.pth"),
    }
    for name, paths in files.items():
        entry = catalogue._LOCALS[name]
        urls = tuple(host.url(path) for path in paths)
        source = catalogue.Source(entry.files[0].file_name, urls)
        changed = catalogue.dataclasses.replace(entry, files=(source,))
        monkeypatch.setitem(catalogue._LOCALS, name, changed)
    host.files["/lightglue.pth"] = _BODY
    assert _models("fetch", "disk_lightglue") == 1
    printed = capsys.readouterr()
    place = cache / "disk_lightglue/disk/depth-save.pth"
    url = host.url("/none.pth")
    assert printed.err == (
        f"beam-dedup: failed: disk_lightglue:disk: {url} is not there (HTTP 404); to fetch it by "
        f"other means, put {url} at {place}\n"
    )
    assert printed.out.startswith("fetched disk_lightglue:lightglue  10.0 kB")
    assert Finder(str(cache)).known("disk_lightglue:lightglue").sha256 == _SHA256


def test_the_second_file_is_taken_where_the_first_is_not_there(
    host: Host, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    name = "clip:ViT-B-32/laion2b_s34b_b79k"
    sources = tuple(catalogue.Source(one, (host.url(f"/{one}"),)) for one in names)
    monkeypatch.setattr(catalogue, "_clip_sources", lambda hub, url: sources)
    host.files[f"/{names[1]}"] = _BODY
    assert _models("fetch", name) == 0
    assert Finder(str(cache)).known(name).path.endswith(names[1])


def test_an_unreachable_host_says_which_file_to_put_where(
    cache: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_ATTEMPTS", 1)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert _models("fetch", "sscd", "--url=http://127.0.0.1:9/x.pt") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "beam-dedup: failed: sscd:disc_mixup: 127.0.0.1:9 cannot be reached, or breaks off: "
        "Connection refused; to fetch it by other means, put "
        f"{catalogue.find('sscd').files[0].urls[0]} at {cache / _SSCD}\n"
    )
    assert not cache.exists()


def test_non_commercial_weights_are_refused_unless_accepted(
    host: Host, cache: Path, capsys: Capture
) -> None:
    name = "clip:ViT-B-32/metaclip_400m"
    path = "/open_clip_model.safetensors"
    assert _fetch(host, name, path=path) == 2
    assert "are under CC-BY-NC-4.0, which does not allow every use" in capsys.readouterr().err
    assert host.asked == []
    assert _fetch(host, name, "--accept_license=MIT", path=path) == 2
    assert _fetch(host, name, "--accept_license=cc-by-nc-4.0", path=path) == 0
    with pytest.raises(ModelError, match=r"give --accept_license CC-BY-NC-4\.0$"):
        Finder(str(cache)).known(name)
    accepted = Finder(str(cache), frozenset({"CC-BY-NC-4.0"})).known(name)
    assert accepted.license == "CC-BY-NC-4.0"


def test_verify_says_what_is_wrong(host: Host, cache: Path, capsys: Capture) -> None:
    _fetch(host)
    path = cache / _SSCD
    by_hand = cache / "loftr/indoor/loftr_indoor.ckpt"
    published = cache / "loftr/outdoor/loftr_outdoor.ckpt"
    nobodys = cache / "other/y/z.bin"
    for one in (by_hand, published, nobodys):
        one.parent.mkdir(parents=True)
        one.write_bytes(_BODY)
    (cache / "other/labels-0.npy").write_bytes(b"")
    path.write_bytes(_BODY[:-1])
    capsys.readouterr()
    assert _models("verify") == 1
    states = dict(line.split()[1::-1] for line in capsys.readouterr().out.splitlines())
    assert states == {
        str(nobodys): "unknown",
        str(by_hand): "unknown",
        str(published): "changed",
        str(path): "changed",
    }
    path.unlink()
    assert _models("verify", "sscd") == 1
    assert capsys.readouterr().out == f"missing    {path}  its receipt is there\n"
    assert _models("verify", "loftr:indoor") == 0
    assert _models("verify", "efficientnet_b1") == 1
    assert "run beam-dedup models fetch efficientnet_b1" in capsys.readouterr().out


def test_an_empty_cache_is_not_wrong(cache: Path, capsys: Capture) -> None:
    assert _models("verify") == 0
    assert capsys.readouterr().out == f"no weights in {cache}\n"


def test_list_shows_every_entry_whole(host: Host, cache: Path, capsys: Capture) -> None:
    _fetch(host)
    capsys.readouterr()
    assert _models("list", "--json") == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [entry.name for entry in catalogue.entries()]
    sscd = next(row for row in rows if row["name"] == "sscd:disc_mixup")
    assert sscd["path"] == str(cache / _SSCD)
    assert sscd["size_bytes"] == len(_BODY)
    assert sscd["sha256_fetched"] == _SHA256
    assert sscd["sha256_published"] is None
    assert next(row for row in rows if row["name"] == "loftr:indoor")["path"] is None
    assert _models("list") == 0
    text = capsys.readouterr().out
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    for row in rows:
        assert row["license"] in lines[row["name"]]
    assert f"({_SHA256[:8]})  yes" in lines["sscd:disc_mixup"]
    assert "CC-BY-NC-4.0 *" in lines["clip:ViT-B-32/metaclip_400m"]


def test_the_cache_is_an_option_too(host: Host, cache: Path, tmp_path: Path) -> None:
    assert _fetch(host, "sscd", f"--cache={tmp_path / 'other'}") == 0
    assert (tmp_path / "other" / _SSCD).read_bytes() == _BODY
    assert not cache.exists()


def test_a_receipt_is_plain_json(host: Host, cache: Path) -> None:
    _fetch(host)
    written = json.loads((cache / f"{_SSCD}.receipt.json").read_text())
    assert set(written) == {"url", "size_bytes", "sha256", "license", "fetched_at"}
    assert Receipt(**written) == Receipt.read(str(cache / _SSCD))


def test_an_interrupt_keeps_the_part(
    host: Host, cache: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    host.plan = [Answer()]
    with monkeypatch.context() as patched:
        patched.setattr(download.Download, "_keep", interrupted)
        assert _fetch(host) == 130
    assert capsys.readouterr().err.endswith("interrupted; the same command goes on from here\n")
    assert not (cache / _SSCD).exists()
    host.asked.clear()
    assert _fetch(host) == 0
    assert [asked for _, asked, _ in host.asked] == [f"bytes={len(_BODY)}-"]
    assert (cache / _SSCD).read_bytes() == _BODY
