"""Programs of others that need a word of ours to work with adapters. Each needs its extra."""
