"""``beam-dedup models labels``: embed the names of ``--labels`` ahead of a run, and keep them."""

from __future__ import annotations

import json
from typing import Any

from beam_dedup.messages import count, one_line
from beam_dedup.models.command import cache_of, make_parser
from beam_dedup.options import OptionParser, UsageError, check_sha256
from transforms.models.labels import PROMPT, find_or_make, read_names
from transforms.models.resolve import resolve_global
from transforms.models.spec import ModelError
from transforms.models.weights import Finder


def main(argv: list[str]) -> int:
    """Run ``beam-dedup models labels``.

    Args:
        argv: the arguments after ``labels``.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments, the names, the model or its weights are refused.
        ModelError: no folder takes the file.
    """
    values = _parser().parse_or_help(argv)
    if values is None:
        return 0
    check_sha256("global_model_sha256", values.global_model_sha256)
    cache = cache_of(values)
    finder = Finder(cache, frozenset(values.accept_license or ()), values.global_model_sha256)
    try:
        names = read_names(values.labels)
        model = resolve_global(values.global_model, finder)
        kept = find_or_make(names, model, cache)
    except ModelError as error:
        raise UsageError(one_line(str(error))) from error
    if not kept.path:
        raise ModelError(
            f"neither the folder of the weights nor the model cache {cache!r} can be written, so "
            "that labels are not kept; name another folder with --model_cache"
        )
    result = {
        "path": kept.path,
        "labels": len(names),
        "dimensions": model.dimensions,
        "scale": kept.labels.scale,
        "prompt": PROMPT,
        "model": model.name,
        "made": kept.is_new,
    }
    print(json.dumps(result, indent=1) if values.json else _to_text(result))
    return 0


def _parser() -> OptionParser:
    parser = make_parser(
        "labels",
        "--global_model clip:ARCH/PRETRAINED --labels FILE [--model_cache DIR] [--json]",
        "Embed the names of a file with CLIP, once, and keep them beside the model's weights. A "
        "run with the same options takes them from there.",
        "Exit codes: 0 done; 1 no folder takes the file; 2 refused.",
    )
    add = parser.add_argument
    add("--global_model", required=True, metavar="NAME", help="as in beam-dedup run; of CLIP")
    add("--global_model_sha256", metavar="HEX", help="what the file of weights must hash to")
    add("--labels", required=True, metavar="FILE", help="names, a line each; UTF-8")
    add(
        "--accept_license",
        action="append",
        metavar="NAME",
        help="take weights of this licence, which does not allow every use; repeatable",
    )
    add("--json", action="store_true", help="print one JSON object instead of text")
    add("-v", "--verbose", action="store_true", help="show log lines and tracebacks")
    return parser


def _to_text(result: dict[str, Any]) -> str:
    done = "made now" if result["made"] else "made before"
    return (
        f"{count(result['labels'])} labels of {one_line(result['model'])}, {done}\n"
        f"{one_line(result['path'])}"
    )
