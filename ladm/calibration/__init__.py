"""Which layers of a model separate coherent documents from incoherent ones."""
