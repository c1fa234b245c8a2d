"""The checks, one question each. No single one sees everything: each was the only one to see some public bug."""
