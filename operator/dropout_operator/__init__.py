"""The operator: watch, plan, apply. It starts pods and keeps the books; of training it knows nothing."""
