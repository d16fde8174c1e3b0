"""Speed, side by side in one run: `python -m benchmarks night|shop`."""
