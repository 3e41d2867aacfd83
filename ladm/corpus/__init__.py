"""Documents -> rows of token ids; reading rows."""
