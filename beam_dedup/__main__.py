"""``python -m beam_dedup``, the same as the console script ``beam-dedup``."""

from beam_dedup.cli import program

if __name__ == "__main__":
    program()
