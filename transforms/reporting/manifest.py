"""The manifest: what a report consists of. Readers trust only what it names."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from transforms.records import ReportFile
from transforms.reporting.store import Store, is_report_path

MANIFEST = "manifest.json"


def read_manifest(store: Store) -> dict[str, Any] | None:
    """Return the manifest of an output folder, or None where there is none.

    Raises:
        ValueError: if it cannot be understood, or names a path outside the folder.
    """
    try:
        with store.open(MANIFEST) as file:
            manifest = json.load(file)
        paths = [entry["path"] for entry in manifest["files"]]
    except FileNotFoundError:
        return None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{MANIFEST} in {str(store.root)!r} is no manifest: {error!r}") from error
    if not all(isinstance(path, str) and is_report_path(path) for path in paths):
        raise ValueError(f"{MANIFEST} in {str(store.root)!r} names a path outside the folder")
    result: dict[str, Any] = manifest
    return result


def write_manifest(
    store: Store,
    run_id: str,
    created: str,
    counts: Mapping[str, int],
    files: Sequence[ReportFile],
) -> None:
    """Publish a report, and remove what earlier manifests named.

    Args:
        store: the output folder.
        run_id: names the run.
        created: ISO 8601 time, UTC.
        counts: the summary's.
        files: every file of the report but the manifest.
    """
    try:
        earlier = read_manifest(store)
    except ValueError:
        # A manifest that cannot be trusted is replaced; nothing that it names is touched.
        earlier = None
    store.sync()
    manifest = {
        "run_id": run_id,
        "created": created,
        "counts": dict(counts),
        "files": [file._asdict() for file in sorted(files)],
    }
    with store.publish(MANIFEST) as out:
        out.write(json.dumps(manifest, indent=1).encode())
    store.sync()
    named = {file.path for file in files}
    for entry in (earlier or {"files": []})["files"]:
        if entry["path"] not in named:
            store.remove(entry["path"])
