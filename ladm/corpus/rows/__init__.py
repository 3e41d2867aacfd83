"""A data set of token ids -> its rows, their identity, and the values of their columns."""
