"""A Kubernetes object as JSON: apart from `kube`, so that what only decides loads nothing that talks."""

from typing import Any

Object = dict[str, Any]
