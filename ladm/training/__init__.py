"""Continual pretraining, of a calculator or of a model on what was selected."""
