"""What works on the units of a run: this process, watched processes on this machine, or actors of a Ray cluster."""
