"""How slot keys and values come from parameters, one a file."""
