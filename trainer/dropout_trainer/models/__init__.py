"""The built-in networks, one module for each. They take raw values and answer in the data's own units."""
