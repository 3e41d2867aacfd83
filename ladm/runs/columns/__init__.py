"""A finished run -> its columns by name: stored, added, derived, or joined from elsewhere."""
