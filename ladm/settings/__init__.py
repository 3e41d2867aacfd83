"""What each command is asked to do: frozen, checked settings with their defaults, and the files that give them."""
