"""How well routing answers, measured against other methods. Nothing is imported here; name the module."""
