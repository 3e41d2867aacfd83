"""A finished run -> which parts of a document its score comes from."""
