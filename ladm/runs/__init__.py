"""A run on disk: its files, its state, and whether it is sound."""
