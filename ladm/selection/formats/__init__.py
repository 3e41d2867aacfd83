"""How a subset is written: one file for each format, the dataset card, and the places that it can go to."""
