"""Passwords of the trainers' MLflow users: derived, so that nothing needs to be stored or read back."""

import base64
import hashlib
import hmac


def trainer_password(key: bytes, namespace: str) -> str:
    """Password of the trainers of `namespace`: HMAC-SHA256 (RFC 2104) of its name, 32 characters of base64url."""
    digest = hmac.new(key, f"trainer/{namespace}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest)[:32].decode()
