"""Documents -> rows of token ids."""
