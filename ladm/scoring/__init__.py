"""Rows and a model -> a finished run folder."""
