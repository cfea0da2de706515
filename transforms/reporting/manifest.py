"""The manifest: what a report consists of. Readers trust only what it names."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from transforms.records import ReportFile
from transforms.reporting.store import Drafts, Store, is_report_path

MANIFEST = "manifest.json"
COUNTS = ("listed", "unique", "best", "duplicate", "failed", "groups")

log = logging.getLogger(__name__)


def read_manifest(store: Store) -> dict[str, Any] | None:
    """Return the manifest of an output folder, or None where there is none.

    Raises:
        ValueError: if it cannot be understood, or names a path outside the folder.
        OSError: if it is there but cannot be read.
    """
    try:
        with store.open(MANIFEST) as file:
            manifest = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{MANIFEST} in {store.shown!r} is no manifest: {error!r}") from error
    problem = _problem(manifest)
    if problem:
        raise ValueError(f"{MANIFEST} in {store.shown!r} {problem}")
    result: dict[str, Any] = manifest
    return result


def _problem(manifest: Any) -> str:
    """Say what is wrong with a manifest's form; empty if nothing is."""
    try:
        counts = [manifest["counts"][name] for name in COUNTS]
        files = [
            (entry["path"], entry["sha256"], entry["size_bytes"], entry["rows"])
            for entry in manifest["files"]
        ]
        texts = [manifest["run_id"], *(text for file in files for text in file[:2])]
        numbers = [*counts, *(file[2] for file in files), *(file[3] or 0 for file in files)]
    except (KeyError, TypeError) as error:
        return f"is no manifest: {error!r}"
    if not all(type(text) is str for text in texts):
        return "is no manifest: it has a name or a hash that is no text"
    if not all(type(number) is int and number >= 0 for number in numbers):
        return "is no manifest: it has a count or a size that is no number"
    paths = [file[0] for file in files]
    if not all(is_report_path(path) for path in paths):
        return "names a path outside the folder"
    if any(path.lower() == MANIFEST for path in paths) or len(set(paths)) != len(paths):
        return "names itself, or a file twice"
    return ""


def publish_report(
    store: Store,
    drafts: Drafts,
    run_id: str,
    created: str,
    counts: Mapping[str, int],
    files: Sequence[ReportFile],
) -> None:
    """Publish a report, and remove what the earlier manifest named.

    What was written to ``drafts`` gets its names right before the manifest, so that the earlier
    report is whole but for the moment of a few renames or commits. Before that moment it is checked
    that no other run has taken the folder.

    Args:
        store: the output folder.
        drafts: files of the report whose names an earlier report may have.
        run_id: names the run.
        created: ISO 8601 time, UTC.
        counts: the summary's.
        files: every file of the report but the manifest.

    Raises:
        OutputLostError: another run has the folder; nothing is published.
    """
    try:
        earlier = read_manifest(store)
    except ValueError:
        # A manifest that cannot be trusted is replaced; nothing that it names is touched.
        earlier = None
    manifest = {
        "run_id": run_id,
        "created": created,
        "counts": dict(counts),
        "files": [file._asdict() for file in sorted(files)],
    }
    with drafts.write(MANIFEST) as out:
        out.write(json.dumps(manifest, indent=1).encode())
    store.sync()
    store.check_lock(run_id)
    drafts.publish()
    store.sync()
    if earlier is not None:
        named = {file.path for file in files}
        _remove(store, [e["path"] for e in earlier["files"] if e["path"] not in named])


def _remove(store: Store, paths: Sequence[str]) -> None:
    left = 0
    for path in paths:
        try:
            store.remove(path)
        except OSError:
            # The new report is published and whole: a run that says otherwise would be wrong.
            left += 1
    if left:
        log.warning("%r files of the earlier report in %r cannot be removed", left, store.shown)
