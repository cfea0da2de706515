"""``python -m beam_dedup``, the same as the console script ``beam-dedup``."""

import sys

from beam_dedup.cli import main

if __name__ == "__main__":
    sys.exit(main())
