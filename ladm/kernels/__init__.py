"""Fast forms of equation 2: attention that returns its log-sum-exp, and PFS made from it."""
