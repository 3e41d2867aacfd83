"""Pick the long documents worth training a long-context model on, by how much they depend on distant parts."""

from ladm.version import __version__ as __version__
