"""The dropout plan: what it says, how it is applied, and layers of our own."""
