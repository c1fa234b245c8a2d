"""Each rule of the CRD that a new object can break has a case, and every case is refused by `problems`, too.

That the API server itself refuses the same cases is shown in tests/api, where there is one.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from dropout_testing.wrong_manifests import BREAKS, FINE, SCHEMA, Changes

from dropout_api.crd import custom_resource_definition
from dropout_api.problems import problems

ROOT = custom_resource_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def spec(changes: Changes) -> dict[str, Any]:
    return {"model": {"factory": "mlp"}, "data": {"factory": "sklearn", "args": {"name": "digits"}}, **changes}


def rules(node: Any) -> Iterator[str]:
    """Texts of the rules that hold for a new object; those about a change name the old one."""
    if isinstance(node, dict):
        yield from (rule["message"] for rule in node.get("x-kubernetes-validations", []) if "oldSelf" not in rule["rule"])
        for child in node.values():
            yield from rules(child)
    elif isinstance(node, list):
        for child in node:
            yield from rules(child)


def test_every_rule_of_a_spec_has_a_case_and_every_case_a_rule() -> None:
    texts = set(rules(ROOT["properties"]["spec"]))

    assert {text for text in texts if not any(begin in text for begin in BREAKS)} == set()
    assert {begin for begin in BREAKS if not any(begin in text for text in texts)} == set()


@pytest.mark.parametrize("changes", [changes for cases in BREAKS.values() for changes in cases] + SCHEMA, ids=str)
def test_a_broken_rule_is_a_problem(changes: Changes) -> None:
    assert problems(spec(changes))


@pytest.mark.parametrize("changes", FINE, ids=str)
def test_what_breaks_none_is_no_problem(changes: Changes) -> None:
    assert problems(spec(changes)) == []
