"""Set-up shared by all tests."""

from apache_beam.testing.test_pipeline import TestPipeline

TestPipeline.__test__ = False  # its name is not meant for pytest
