"""A finished run and a token budget -> the documents to train on."""
