"""What a model is to the pipeline: plain values that travel to every worker.

``resolve`` makes them on the client from what a user names; ``network`` makes a network of them on
a worker, when the first picture comes.
"""

import dataclasses
from typing import TYPE_CHECKING, Final, Optional

if TYPE_CHECKING:
    from transforms.imaging.preparation import Preparation

DESCRIPTOR: Final = "descriptor"


class ModelError(ValueError):
    """A model, its weights or its licence are refused; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file of weights that was looked at on the client.

    Attributes:
        path: absolute, and the same on every worker.
        sha256: 64 hex digits; a worker whose file has another refuses it.
        size_bytes: of the file.
        license: SPDX identifier or name; ``unknown`` for a file that a user names.
    """

    path: str
    sha256: str
    size_bytes: int
    license: str = "unknown"


@dataclasses.dataclass(frozen=True)
class GlobalModel:
    """A model that makes one vector of one picture.

    Attributes:
        name: as the user gave it; rows and caches of another name are of another model.
        family: what knows how to load it: the module of ``transforms.models`` of that name.
        variant: which of the family, for example CLIP's architecture.
        weights: None if it needs none.
        preparation: what it does to a picture first; None takes the thumbnail of the record.
        dimensions: length of a vector.
        reject_similarity: cosine below which stage 3 rejects a pair, 0..1; None asks the profile.
        propose_similarity: cosine from which two images are a candidate pair, 0..1.
        threshold_source: where the two come from.
    """

    name: str
    family: str
    variant: str = ""
    weights: Optional[Weights] = None
    preparation: Optional["Preparation"] = None
    dimensions: int = 0
    reject_similarity: Optional[float] = None
    propose_similarity: float = 0.9
    threshold_source: str = ""

    @property
    def is_learned(self) -> bool:
        """Whether its vectors come of weights, and turn with no permutation."""
        return self.family != DESCRIPTOR


@dataclasses.dataclass(frozen=True)
class LocalModel:
    """What matches the points of two pictures.

    Attributes:
        name: as the user gave it.
        kind: orb | sift | loftr | disk_lightglue.
        variant: which of the kind, for example LoFTR's indoor or outdoor.
        weights: one file for each part, in the order of the module's ``PARTS``; empty for points.
    """

    name: str
    kind: str
    variant: str = ""
    weights: tuple[Weights, ...] = ()

    @property
    def is_learned(self) -> bool:
        """Whether it comes of weights, and takes thumbnails instead of points."""
        return self.kind not in ("orb", "sift")


@dataclasses.dataclass(frozen=True)
class Execution:
    """Where models run.

    Attributes:
        device: auto | cpu | cuda | cuda:N,M.
        shared: one model for all processes of a machine instead of one for each.
        processes: how many worker processes a machine runs; 0 where the runner decides that.
        job: names the job to processes that share a model; letters, digits and hyphens.
    """

    device: str = "auto"
    shared: bool = False
    processes: int = 0
    job: str = ""

    def __post_init__(self) -> None:
        """Check that no two jobs share a model by accident."""
        if self.shared and not self.job:
            raise ValueError("a shared model needs the name of its job")


@dataclasses.dataclass(frozen=True)
class Labels:
    """Names with their vectors in a model's space.

    Attributes:
        names: one for each label.
        vectors: float32 [n, d], rows of length 1, as bytes.
        scale: by which cosines are multiplied before their softmax.
    """

    names: tuple[str, ...]
    vectors: bytes
    scale: float


# From here on three labelled sets (11,660 images) have about one false pair an image: 1.05, 0.54,
# 1.02. At 0.92 they have a tenth less, and 20 of 47 copies that it alone found in two are lost.
_DESCRIPTOR_PROPOSES: Final = 0.9
EMBEDDED_DESCRIPTOR: Final = GlobalModel(
    DESCRIPTOR, DESCRIPTOR, dimensions=231, propose_similarity=_DESCRIPTOR_PROPOSES
)
ORB: Final = LocalModel("orb", "orb")


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of one job, as they were resolved on the client.

    Attributes:
        global_model: of stage 3, of embeddings in rows, and of candidates.
        local_model: of stage 4.
        labels: None if rows get no label.
        execution: where they run.
    """

    global_model: GlobalModel = EMBEDDED_DESCRIPTOR
    local_model: LocalModel = ORB
    labels: Optional[Labels] = None
    execution: Execution = dataclasses.field(default_factory=Execution)
