"""Set-up shared by all tests."""

from apache_beam.testing.test_pipeline import TestPipeline
from hypothesis import settings

TestPipeline.__test__ = False  # its name is not meant for pytest

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("beam_dedup", deadline=None)
settings.load_profile("beam_dedup")
