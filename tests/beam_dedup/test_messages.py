"""Messages: one line, no secret, no control character, quotes that a shell undoes."""

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_dedup import messages

_WORKER_ERROR = """Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in apache_beam.runners.common.DoFnRunner.process
  File "/x/fake.py", line 8, in process
    raise OSError(28, "No space left on device", "/x")
OSError: [Errno 28] No space left on device: '/x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1623, in DoFnRunner._reraise_augmented
RuntimeError: OSError: [Errno 28] No space left on device: '/x' [while running 'Write report/Rows']

"""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            RuntimeError(_WORKER_ERROR),
            "step 'Write report/Rows': OSError: [Errno 28] No space left on device: '/x'",
        ),
        (RuntimeError("OSError: full [while running 'A']"), "step 'A': OSError: full"),
        (OSError(28, "full"), "OSError: [Errno 28] full"),
        (ValueError(), "ValueError: no message"),
        (ValueError("a\nb"), "ValueError: b"),
    ],
)
def test_r13_a_failure_is_one_line_with_step_and_cause(error: Exception, line: str) -> None:
    assert messages.describe_failure(error) == line


def test_x2_secrets_are_taken_out() -> None:
    key = "c2VjcmV0=="
    text = (
        f"AccountName=a;AccountKey={key};x sig={key} ?sv=1&sig={key}&se=2 SharedAccessKey = {key} "
        f"https://user:{key}@host/ sig%3D{key}"
    )
    assert messages.has_secret(text)
    clean = messages.redact(text)
    assert key not in clean
    assert "AccountKey=[redacted];x" in clean
    assert "&se=2" in clean
    assert key not in messages.describe_failure(ValueError(text))
    assert not messages.has_secret("design=3 https://host/a@b Signature")


def test_x6_control_characters_are_escaped_and_length_is_bounded() -> None:
    line = messages.safe_line("a\x1b[31m\nb\u202e" + "x" * 10_000)
    assert line.startswith("a\\x1b[31m\\x0ab\\u202e")
    assert len(line) == 500


def test_x5_pillow_style_name_is_quoted() -> None:
    assert messages.shell_command(["beam-dedup", "temp_';", "a b"]) == (
        "beam-dedup 'temp_'\"'\"';' 'a b'"
    )
    assert messages.shell_word("a\x1b[31m'\n") == "$'a\\x1b[31m\\'\\x0a'"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))))
def test_x5_a_shell_gives_back_every_word(words: list[str]) -> None:
    command = messages.shell_command(["printf", "%s\\0", *words])
    if words:
        out = subprocess.run(["bash", "-c", command], capture_output=True, check=True).stdout
        assert out == "".join(f"{word}\0" for word in words).encode()


def test_numbers() -> None:
    assert messages.count(1234567) == "1,234,567"
    assert [messages.size(n) for n in (0, 999, 1500, 2.5e6, 3e9, 4e15)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
        "4000.0 TB",
    ]
    assert [messages.duration(s) for s in (0.04, 59.94, 61, 3600 * 30 + 62)] == [
        "0.0 s",
        "59.9 s",
        "0:01:01",
        "30:01:02",
    ]
