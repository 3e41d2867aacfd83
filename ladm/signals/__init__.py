"""The signals that score a row: one module each, behind one protocol."""
