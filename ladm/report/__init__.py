"""A finished run -> one offline HTML page."""
