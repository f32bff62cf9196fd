"""Specs: variants as data, checked against the algebra. No torch is needed to read one."""
