"""Documents and a tokenizer -> rows: `ladm prepare`."""
