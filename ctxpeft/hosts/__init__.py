"""How a variant gets into a transformers model. The only package that knows transformers' insides."""
