"""The gate: proves that an exported program is in eval mode. Pure of MLflow; its only side effect is reading files."""
