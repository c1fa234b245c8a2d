"""The webhook: a call counts when it is signed with the secret and fresh; what it says is a hint."""

import asyncio
import io
import time

import aiohttp
import pytest
from dropout_testing.processes import free_port

from dropout_operator.metrics import Metrics
from dropout_operator.server import serve
from dropout_operator.webhook import PATH, Hook, authentic, named, sign

SECRET = b"of-the-tests"
NOW = 1_800_000_000.0
BODY = b'{"entity": "model_version", "action": "created", "data": {"name": "team.digits", "version": "1"}}'


def headers(secret: bytes = SECRET, timestamp: str = str(int(NOW)), body: bytes = BODY, **changes: str) -> dict[str, str]:
    signed = {
        "X-MLflow-Delivery-Id": "d", "X-MLflow-Timestamp": timestamp, "X-MLflow-Signature": sign(secret, "d", timestamp, body),
    }
    return signed | {f"X-MLflow-{name}": value for name, value in changes.items()}


def test_the_signature_is_the_one_that_mlflow_makes() -> None:
    """A value that MLflow 3.17 made; the suite `api` hears a server itself."""
    assert sign(SECRET, "d", "1", BODY) == "v1,VawiKl3StUtbfwCSif5/+cV5zoYNcECAuahTS+TDtlI="


def test_a_signed_call_counts_for_five_minutes() -> None:
    for age in (-299, 0, 299):
        assert authentic(SECRET, headers(), BODY, NOW + age)
    for age in (-301, 301):
        assert not authentic(SECRET, headers(), BODY, NOW + age)


@pytest.mark.parametrize("given", [
    {}, headers(secret=b"guessed"), headers(body=b"{}"), headers(Timestamp=str(int(NOW) + 1)), headers(**{"Delivery-Id": "e"}),
    headers(Signature=""), headers(Signature="v1,"), headers(Signature="v2," + headers()["X-MLflow-Signature"][3:]),
    headers(Signature="v1,\udcff"), headers(timestamp="soon"), headers(timestamp="-1"), headers(timestamp="9" * 400),
])
def test_any_other_call_does_not(given: dict[str, str]) -> None:
    assert not authentic(SECRET, given, BODY, NOW)


@pytest.mark.parametrize(("body", "name"), [
    (BODY, "team.digits"), (b"", None), (b"[]", None), (b'{"data": {}}', None), (b'{"data": {"name": 7}}', None), (b"[" * 100_000, None),
    (b'{"data": {"name": ""}}', None), (b'{"data": {"name": "' + b"x" * 300 + b'"}}', None),
    (b'{"data": {"name": "a\' OR name = \'b"}}', None),
])
def test_a_name_that_is_not_fit_for_a_search_asks_for_a_look_at_all(body: bytes, name: str | None) -> None:
    assert named(body) == name


def test_who_calls_gets_to_know_no_more_than_whether_it_was_heard() -> None:
    heard: list[str | None] = []

    async def talk() -> list[int]:
        port = free_port()
        server = await serve(port, Metrics(), lambda: True, Hook(SECRET, heard.append))
        url = f"http://127.0.0.1:{port}{PATH}"
        now = str(int(time.time()))
        calls = ((BODY, headers(timestamp=now)), (BODY, headers(b"guessed", now)), (io.BytesIO(bytes(2 << 20)), {}))
        try:
            async with aiohttp.ClientSession() as session:
                return [(await session.post(url, data=body, headers=given)).status for body, given in calls]
        finally:
            await server.cleanup()

    assert asyncio.run(talk()) == [204, 401, 413]
    assert heard == ["team.digits"]


def test_without_a_secret_there_is_no_such_path() -> None:
    async def talk() -> int:
        port = free_port()
        server = await serve(port, Metrics(), lambda: True)
        try:
            async with aiohttp.ClientSession() as session:
                return (await session.post(f"http://127.0.0.1:{port}{PATH}", data=BODY, headers=headers())).status
        finally:
            await server.cleanup()

    assert asyncio.run(talk()) == 404
