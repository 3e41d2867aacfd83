"""A lock that lets one thread at a time make a model with transformers. Imports no torch."""

from __future__ import annotations

import threading

LOADING = threading.RLock()
"""Hold it around everything that makes a model.

While `from_pretrained` runs, it replaces functions of its classes and of `torch.nn.init`, and sets PyTorch's default
dtype, all for the whole process. Two calls at a time make models that lack weights or mix number formats, and may leave
the replacements in place for every later one.
"""
