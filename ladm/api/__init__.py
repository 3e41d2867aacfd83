"""What `import ladm` offers: the commands as functions, and a scorer in memory."""
