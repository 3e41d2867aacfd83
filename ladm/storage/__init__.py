"""Atomic files, locks, identities and stopping: what makes work on disk safe."""
