"""Pick the long documents worth training a long-context model on, by how much they depend on distant parts."""

__version__ = "0.1.0"
