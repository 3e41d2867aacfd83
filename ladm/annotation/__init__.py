"""Columns that need no model, added to a finished run."""
