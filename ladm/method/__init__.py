"""The paper's equations, the attention that they start from, and their fast forms."""
