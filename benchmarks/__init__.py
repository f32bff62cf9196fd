"""What is claimed about speed and size, measured: `python -m benchmarks` writes docs/performance.md."""
