"""How stores other than this machine's files are reached; nothing here is a secret."""

import dataclasses
from typing import Optional


@dataclasses.dataclass(frozen=True)
class Access:
    """What a process may ask of a store, and where its credentials are.

    It travels to every worker with the steps of the pipeline, so it names credentials and never
    holds one.
    A process that works on several bundles at once reads for each of them as much as is said here.

    Args:
        secret_file: a file with ``NAME=VALUE`` lines that stand for environment variables, such as
            a mounted secret; None reads the environment itself.
        requests_per_second: the most that this process may send in any one second; None sets no
            bound.
        concurrency: objects that this process reads at once.
        memory_bytes: of objects that this process has asked for and not yet used.
    """

    secret_file: Optional[str] = None
    requests_per_second: Optional[int] = None
    concurrency: int = 32
    memory_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        for name in ("requests_per_second", "concurrency", "memory_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be 1 or more, not {value!r}")


LOCAL = Access()
