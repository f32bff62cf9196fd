"""The space: from the spec's types and a space file to a tree, and from the tree to variants."""
