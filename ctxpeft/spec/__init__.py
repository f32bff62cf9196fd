"""Specs: variants as data, checked against the algebra. No torch here; the blocks they choose among import it."""
