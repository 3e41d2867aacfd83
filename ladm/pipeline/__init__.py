"""`ladm run`: from documents to a subset and a page about it, in one command."""
