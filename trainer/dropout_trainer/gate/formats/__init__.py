"""What may be loaded without running anything: a check for each format, applied before any loader sees the file."""
