"""Measurements of Wardian beside its peers, see README.md. `python -m benchmarks [NAME...]` runs them; they are no tests."""
