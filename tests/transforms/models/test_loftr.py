"""Tests of LoFTR with random weights: kornia's own matches, loaded by path, and no pair lost."""

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")

from safetensors.torch import save_file  # noqa: E402

from tests.transforms.imaging.pictures import photograph  # noqa: E402
from tests.transforms.models import matched  # noqa: E402
from transforms.imaging.local import LocalEvidence, LocalSettings  # noqa: E402
from transforms.models.learned_matcher import LearnedMatcherHandler  # noqa: E402
from transforms.models.loftr import LoftrMatcher, load, resolve  # noqa: E402
from transforms.models.matches import View  # noqa: E402
from transforms.models.spec import Execution, ModelError  # noqa: E402
from transforms.models.weights import Finder  # noqa: E402


def network(seed: int = 0) -> Any:
    """Return a LoFTR with random weights that takes any match."""
    from kornia.feature import LoFTR

    torch.manual_seed(seed)
    made = LoFTR(pretrained=None).eval()
    made.coarse_matching.thr = 0.0
    return made


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write random weights as the published file has them."""
    path = tmp_path_factory.mktemp("loftr") / "loftr.ckpt"
    state = {f"matcher.{name}": one for name, one in network().state_dict().items()}
    torch.save({"state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def matcher(weights: Path) -> LoftrMatcher:
    made = load(resolve(f"loftr:{weights}", Finder("")), "cpu")
    made.network.coarse_matching.thr = 0.0
    return made


def view(seed: int, height: int, width: int) -> View:
    return View(bytes([seed, height, width]), photograph(seed, height, width))


def grey(of: View) -> Any:
    import cv2

    luma = cv2.cvtColor(of.pixels, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    return torch.from_numpy(luma)[None, None]


def test_matches_are_those_of_kornia_called_by_hand(matcher: LoftrMatcher) -> None:
    a, b = view(1, 64, 96), view(2, 96, 64)
    with torch.inference_mode():
        by_hand = network()({"image0": grey(a), "image1": grey(b)})
    (found,) = matcher([(a, b)])
    assert len(found.a) == len(by_hand["keypoints0"]) > 0
    # Kornia's frame has the centre of the first pixel at 0.5, ours at 0.
    np.testing.assert_allclose(found.a, by_hand["keypoints0"].numpy() - 0.5, atol=1e-4)
    np.testing.assert_allclose(found.b, by_hand["keypoints1"].numpy() - 0.5, atol=1e-2)
    np.testing.assert_allclose(found.confidence, by_hand["confidence"].numpy(), atol=1e-5)


def test_an_image_lies_in_itself_where_it_lies(matcher: LoftrMatcher) -> None:
    a = view(3, 96, 128)
    (found,) = matcher([(a, a)])
    # Whatever the weights, a cell is most like itself; the grid begins at its corner.
    steps = np.abs(found.a - found.b).max(axis=1)
    assert len(steps) >= 5
    assert steps.max() <= 4.0
    assert ((found.a + 0.5) % 8 == 0).all()


def test_pairs_of_several_shapes_match_as_they_do_alone(
    matcher: LoftrMatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c, d = view(1, 64, 96), view(2, 64, 90), view(3, 50, 96), view(4, 96, 64)
    tiny = View(b"tiny", photograph(5, 64, 200)[:31])
    pairs = [(a, b), (d, a), (a, c), (tiny, a), (b, c)]
    seen: list[int] = []
    before = matcher.network.forward
    monkeypatch.setattr(
        matcher.network, "forward", lambda data: seen.append(len(data["image0"])) or before(data)
    )
    with monkeypatch.context() as on_gpu:
        on_gpu.setattr(matcher, "at_once", LoftrMatcher(matcher.network, "cuda:0").at_once)
        together = matcher(pairs)
    assert seen == [3, 1]
    # On a CPU batches take memory for nothing.
    matcher(pairs)
    assert seen == [3, 1, 1, 1, 1, 1]
    for pair, found in zip(pairs, together, strict=True):
        (alone,) = matcher([pair])
        assert len(found.a) == len(alone.a)
        np.testing.assert_allclose(found.a, alone.a, atol=1e-3)
        np.testing.assert_allclose(found.b, alone.b, atol=1e-2)
    assert len(together[3].a) == 0


def test_no_match_lies_in_the_padding(matcher: LoftrMatcher) -> None:
    a, b = view(1, 66, 98), view(2, 70, 100)  # both are padded to 96 and 128
    (found,) = matcher([(a, b)])
    assert len(found.a) > 0
    assert found.a[:, 0].max() <= 98
    assert found.a[:, 1].max() <= 66
    # The fine stage moves a place by 4 pixels at most.
    assert found.b[:, 0].max() <= 104
    assert found.b[:, 1].max() <= 74


def test_variants_encode_places_as_they_were_trained(weights: Path) -> None:
    finder = Finder("")
    places = {}
    for variant in ("outdoor", "indoor", "indoor_new"):
        model = resolve(f"loftr:{variant}:{weights}", finder)
        assert (model.kind, model.variant) == ("loftr", variant)
        assert [one.path for one in model.weights] == [str(weights)]
        made = load(model, "cpu")
        assert not made.network.training
        assert made.size_bytes > 40e6
        places[variant] = made.network.pos_encoding.pe
    assert torch.equal(places["outdoor"], places["indoor"])
    assert not torch.equal(places["outdoor"], places["indoor_new"])
    plain = resolve(f"loftr:{weights}", finder)
    assert (plain.variant, plain.weights[0].path) == ("outdoor", str(weights))


def test_known_weights_are_asked_for_by_name() -> None:
    for text, name in (("loftr", "outdoor"), ("loftr:indoor_new", "indoor_new")):
        with pytest.raises(ModelError, match=name) as refused:
            resolve(text, Finder("/no/cache"))
        assert "\n" not in str(refused.value)


def test_x1_r12_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    state = network().state_dict()
    first = next(iter(state))
    for name, changed, reason in (
        ("shape", {**state, first: torch.zeros(2)}, f"size mismatch for {first}"),
        ("missing", {key: state[key] for key in state if key != first}, f"'{first}'"),
    ):
        path = tmp_path / f"{name}.safetensors"
        save_file(changed, path)
        with pytest.raises(ModelError) as refused:
            load(resolve(f"loftr:{path}", Finder("")), "cpu")
        message = str(refused.value)
        assert "\n" not in message
        assert f"{str(path)!r} do not fit LoFTR (outdoor)" in message
        assert reason in message


class _Payload:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (self.canary,)  # type: ignore[attr-defined]


def test_x1_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    payload, canary = _Payload(), tmp_path / "canary"
    payload.canary = canary  # type: ignore[attr-defined]
    path = tmp_path / "evil.ckpt"
    torch.save({"state_dict": payload}, path)
    with pytest.raises(ModelError, match="are refused") as refused:
        load(resolve(f"loftr:{path}", Finder("")), "cpu")
    assert "\n" not in str(refused.value)
    assert not canary.exists()


def test_random_weights_give_every_pair_a_verdict(weights: Path) -> None:
    model = dataclasses.replace(resolve(f"loftr:{weights}", Finder("")), name="loftr random")
    handler = LearnedMatcherHandler(model, Execution("cpu"), LocalSettings(), 4, 9)
    handler = pickle.loads(pickle.dumps(handler))  # noqa: S301 - made here
    members = [matched.scaled(matched.whole(seed), 0.25) for seed in (1, 2)]
    members += [members[0].cropped(10, 10, 50, 70), members[0].turned(6)]
    records = [one.record(f"member-{number}") for number, one in enumerate(members)]
    pairs = [matched.pair(records[0], other) for other in records[1:]]
    results = list(handler.run_inference(pairs, handler.load_model()))
    assert [result.example for result in results] == pairs
    assert all(isinstance(result.inference.value, LocalEvidence) for result in results)
