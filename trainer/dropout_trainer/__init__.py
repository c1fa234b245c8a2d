"""Train a torch model with a typed dropout plan, export it in eval mode, prove that it is, register it."""
