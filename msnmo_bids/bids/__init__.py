"""The BIDS side: which scans there are, what their derivatives are called, what is complete."""
