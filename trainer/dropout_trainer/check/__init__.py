"""`dropout check`: the gate for any model at hand, at a terminal, in a pipeline or in a test, without a cluster or a registry."""
