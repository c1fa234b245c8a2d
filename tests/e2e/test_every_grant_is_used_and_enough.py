"""What the API server's audit log says of the operator's account during this suite: nothing refused, no grant idle."""

import json

import pytest
from dropout_testing import cluster

pytestmark = pytest.mark.alone

UNUSED = {
    ("training.dropout.dev", "dropouttrainingjobs/finalizers", "update"):
        "lets children name their job as a blocking owner where OwnerReferencesPermissionEnforcement is on; it is never called",
}
"""Grants that a run of this suite may leave unused, each with its reason."""


@pytest.fixture(scope="module")
def calls() -> list[dict[str, object]]:
    log = cluster.audit_log()
    if log is None:
        message = "no audit log: this cluster is not hack/cluster's"
        pytest.fail(message) if cluster.in_ci() else pytest.skip(message)
    user = f"system:serviceaccount:{cluster.OPERATOR_NAMESPACE}:{cluster.OPERATOR_ACCOUNT}"
    events = (json.loads(line) for line in log.read_text().splitlines())
    return [event for event in events if event["user"].get("username") == user and event["stage"] == "ResponseComplete"]


def test_no_call_was_refused(calls: list[dict[str, object]]) -> None:
    assert calls
    refused = [
        (event["verb"], event["requestURI"], event["responseStatus"]) for event in calls
        if event["responseStatus"]["code"] in (401, 403)  # type: ignore[index]
        and "being terminated" not in event["responseStatus"].get("message", "")  # type: ignore[attr-defined]
    ]
    assert refused == []


def test_every_grant_was_used(calls: list[dict[str, object]]) -> None:
    used = set()
    for event in calls:
        target = event.get("objectRef")
        if isinstance(target, dict):
            resource = target["resource"] + (f"/{target['subresource']}" if "subresource" in target else "")
            used.add((target.get("apiGroup", ""), resource, event["verb"]))
    granted = cluster.grants(cluster.OPERATOR_ACCOUNT)
    assert granted - used - UNUSED.keys() == set()
    assert UNUSED.keys() <= granted, "an exception for a grant that is no longer made"
