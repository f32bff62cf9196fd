"""The blocks: spec, readable reference and torch module of one kind together in one file. Tensors in, tensors out."""
