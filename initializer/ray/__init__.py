"""Ray: one file for each of its private and public seams. No other wing imports Ray for these."""
