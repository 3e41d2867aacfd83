"""The version of the package, in a module of its own: whoever needs it need not import the front door."""

__version__ = "0.1.0"
