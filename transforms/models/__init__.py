"""Beam ModelHandlers for RunInference; imported only where stages 3 and 4 are built.

Importing Beam's inference package imports torch where it is installed, so nothing else in this
project imports this package at the top of a module that the fast profile needs.
"""

from transforms.models.descriptor import DescriptorHandler
from transforms.models.matcher import MatcherHandler

__all__ = ["DescriptorHandler", "MatcherHandler"]
