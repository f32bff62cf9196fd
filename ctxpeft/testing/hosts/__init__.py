"""The conformance run over the hosts: every architecture of transformers' mappings at a tiny random configuration."""
