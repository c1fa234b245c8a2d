"""The same manifests before a real API server and before `dropout validate`: what either of them takes by its rules, so does the other."""

import pytest
from dropout_testing.control_plane import ControlPlane
from dropout_testing.jobs import collection, manifest, refused
from dropout_testing.wrong_manifests import BREAKS, FINE, SCHEMA, Changes

from dropout_api.problems.manifests import manifest_problems


@pytest.mark.parametrize(("rule", "changes"), [(rule, changes) for rule, cases in BREAKS.items() for changes in cases], ids=str)
def test_a_broken_rule_is_refused_in_its_own_words(rule: str, changes: Changes, plane: ControlPlane, namespace: str) -> None:
    body = manifest("wrong", **changes)

    assert rule in refused(plane, namespace, body)
    assert manifest_problems(body)


@pytest.mark.parametrize("changes", SCHEMA, ids=str)
def test_what_the_schema_refuses_is_refused(changes: Changes, plane: ControlPlane, namespace: str) -> None:
    body = manifest("wrong", **changes)

    assert refused(plane, namespace, body)
    assert manifest_problems(body)


@pytest.mark.parametrize("changes", FINE, ids=str)
def test_what_is_fine_is_taken(changes: Changes, plane: ControlPlane, namespace: str) -> None:
    body = manifest("fine", **changes)

    assert manifest_problems(body) == []
    assert plane.request("POST", collection(namespace), body)["metadata"]["name"] == "fine"
