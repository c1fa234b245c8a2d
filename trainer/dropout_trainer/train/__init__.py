"""What a training pod does: build model and data, apply the dropout plan, train, measure, export a candidate."""
