"""Columns of a run, or of two, side by side; and the documents at either end of one."""
