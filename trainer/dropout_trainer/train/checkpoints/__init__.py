"""Checkpoints: all that a training needs to go on as if nothing had happened, in a folder of its own.

A checkpoint is a few files with one number, as `00000012.model.safetensors`; the one that names all others by digest,
`00000012.manifest.json`, is written last, so what was cut off has none. Tensors are safetensors, the rest JSON: nothing is ever
unpickled, and nothing is believed before its digest, its schema and the model have been held against it.
"""
