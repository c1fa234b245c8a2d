"""The cluster doesn't start where its ports, its bridge or its tables are somebody else's, and says whose."""

import os
import socket
import subprocess
from typing import Any

import pytest

pytestmark = pytest.mark.cluster


def refusal(cluster: Any) -> str:
    done = cluster("up")
    assert done.returncode == 1
    assert "refusing to start" in done.stderr
    assert not (cluster.home / "state").exists()
    return done.stderr


def test_a_port_in_use_is_named_with_its_process(cluster: Any) -> None:
    with socket.create_server(("127.0.0.1", 6443)):
        named = refusal(cluster)
    assert "port 6443 is in use by users:" in named
    assert f"pid={os.getpid()}," in named


def test_a_bridge_of_that_name_is_named_and_left(cluster: Any) -> None:
    subprocess.run(["ip", "link", "add", "dropout0", "type", "bridge"], check=True)
    try:
        assert "a network interface dropout0 exists" in refusal(cluster)
        cluster.succeed("down")
        subprocess.run(["ip", "link", "show", "dropout0"], check=True, capture_output=True)
    finally:
        subprocess.run(["ip", "link", "del", "dropout0"], check=True)


def test_a_table_of_a_kube_proxy_is_named_and_left(cluster: Any) -> None:
    # "create", unlike "add", fails where the table exists: what this test removes in the end is its own.
    subprocess.run(["nft", "create", "table", "ip", "kube-proxy"], check=True)
    try:
        assert "an nftables table 'ip kube-proxy' exists" in refusal(cluster)
        cluster.succeed("down")
        subprocess.run(["nft", "list", "table", "ip", "kube-proxy"], check=True, capture_output=True)
    finally:
        subprocess.run(["nft", "delete", "table", "ip", "kube-proxy"], check=True)
