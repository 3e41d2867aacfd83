"""Pick the long documents worth training a long-context model on, by how much they depend on distant parts."""

from importlib.metadata import version

__version__ = version("ladm")
