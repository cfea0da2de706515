"""What is about to be done, and what was done, kept in the destination itself.

``journal/RUN_ID/BATCH.SESSION.planned.jsonl`` is written before the first file of a batch is
copied, ``….done.jsonl`` after the last. Each is written once, as a whole: that is the same for a
folder and for Azure, where a blob that grows has 50,000 pieces at most. The first line says which
plan it belongs to, every other is one file.
"""

from __future__ import annotations

import datetime
import json
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from beam_dedup.actions.places import Place
from beam_dedup.actions.plan import Plan

_NAME = re.compile(r"(\d{8})\.[0-9A-Za-z-]+\.(planned|done)\.jsonl")


class JournalError(ValueError):
    """The journal at the destination is another plan's, or cannot be understood."""


class Journal:
    """The journal of one plan at one destination.

    Args:
        place: the destination.
        plan: what is done.
    """

    def __init__(self, place: Place, plan: Plan) -> None:
        self._place = place
        self._folder = f"journal/{plan.run_id}"
        started = datetime.datetime.now(datetime.UTC)
        self._session = f"{started:%Y%m%dT%H%M%S-%fZ}-{secrets.token_hex(4)}"
        self._head = {
            "action": "copy",
            "run_id": plan.run_id,
            "plan": plan.digest,
            "started": started.isoformat(timespec="seconds"),
        }
        self._files: dict[int, list[str]] = defaultdict(list)
        for name in place.names(self._folder):
            if found := _NAME.fullmatch(name):
                self._files[int(found[1])].append(name)
        for names in list(self._files.values())[:1]:
            self._lines(names[0])  # another plan's is refused before anything is done

    def was_begun(self, batch: int) -> bool:
        """Tell whether anything was to be done for a batch before this session."""
        return batch in self._files

    def done(self, batch: int) -> dict[str, str]:
        """Return the ETags of the copies that earlier sessions found or made, by target.

        Raises:
            JournalError: a file is another plan's, or no journal.
        """
        names = [name for name in self._files.get(batch, []) if name.endswith(".done.jsonl")]
        lines = [line for name in names for line in self._lines(name)]
        return {line["target"]: line["etag"] for line in lines if line.get("etag")}

    def write(self, batch: int, kind: str, lines: Iterable[Mapping[str, Any]]) -> None:
        """Write what is planned or done of a batch.

        Args:
            batch: its number.
            kind: ``planned`` or ``done``.
            lines: one for each file.
        """
        name = f"{self._folder}/{batch:08d}.{self._session}.{kind}.jsonl"
        text = "".join(json.dumps(line) + "\n" for line in (self._head, *lines))
        self._place.write(name, text.encode())

    def _lines(self, name: str) -> list[dict[str, Any]]:
        path = f"{self._folder}/{name}"
        found = self._place.find(path)
        try:
            data = self._place.read(path, found.size_bytes) if found else b""
            head, *lines = [json.loads(line) for line in data.splitlines()]
            plan = head["plan"]
            if not all(isinstance(line["target"], str) for line in lines):
                raise TypeError("a target is no text")
        except (ValueError, KeyError, TypeError) as error:
            raise JournalError(f"{path} in the destination is no journal: {error!r}") from error
        if plan != self._head["plan"]:
            raise JournalError(
                f"{path} in the destination belongs to another report with the same run id; "
                "choose another destination"
            )
        return lines
