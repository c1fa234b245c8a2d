"""What several suites start for real: an API server with etcd, an MLflow server, and faults between them and the operator."""
