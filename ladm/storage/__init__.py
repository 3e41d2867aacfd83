"""Atomic files, locks, output folders and signals: what makes work on disk safe."""
