"""The settings of each command: frozen, checked objects with their defaults, and the YAML files that set them."""
