"""Dropout layers, and the plan that sets them."""
