"""The verify stage: fetch a candidate, let the gate judge it, register what passes. Runs as the verifier, never with user code."""
