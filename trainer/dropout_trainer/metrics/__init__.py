"""What a model's answers are worth, measured the same way by the training loop and by the verifier."""
