"""Who is refused where more large messages, or answers that nobody takes, come than there are
places for."""

import contextlib
import threading

import pytest
from test_export import X

pytest.importorskip("aiohttp", reason="needs aiohttp (extra `serve`)")
pytest.importorskip("orjson", reason="needs orjson (extra `serve`)")
pytest.importorskip("prometheus_client", reason="needs prometheus_client (extra `serve`)")
pytest.importorskip("grpc", reason="needs grpcio (extra `grpc`)")
import grpc
from http2_calls import calls
from served import service
from test_grpc_v2 import OF_AGE, counted, counters, held, read, request, told, wait_until
from test_open_inference import check_same

from kerasmlp.serving.server.bodies import Bodies
from kerasmlp.serving.server.grpc_messages import SERVICE, parse
from kerasmlp.serving.server.json_process import JsonProcess

SMALL = request({"embedding": X}, True).SerializeToString()
LARGE = request({"embedding": X}, True, id="a" * 100_000).SerializeToString()
BUSY = (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests at one time, try again")


@pytest.fixture
def decoding(monkeypatch):
    """Large bodies that came to be decoded, and what lets that happen."""
    came, go_on, decode, decoded = [], threading.Event(), JsonProcess.decode, Bodies.decoded

    def slowly(*asked):
        go_on.wait(60)
        return decode(*asked)

    def seen(self, client, body, *asked):
        if body == LARGE:
            came.append(client)
        return decoded(self, client, body, *asked)

    monkeypatch.setattr(JsonProcess, "decode", slowly)
    monkeypatch.setattr(Bodies, "decoded", seen)
    yield came, go_on
    go_on.set()


@contextlib.contextmanager
def connected(port):
    """What asks over a connection of its own."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=own) as channel:
        yield channel.unary_unary(f"/{SERVICE}/ModelInfer").future


def refusal(call):
    error = call.exception(20)
    return error.code(), error.details()


def test_what_waits_to_be_decoded_is_not_lost_to_more_of_the_same_address(
    models, version, decoding
):
    came, go_on = decoding
    expected = version.run("serving_default", {"embedding": X})
    with (
        service(models, grpc_port=0, max_requests=4) as (http, port),
        connected(port) as ask,
        connected(port) as ask_too,
    ):
        first = []
        for count in range(1, 5):
            first.append(ask(LARGE))
            wait_until(lambda count=count: len(came) == count)
        assert [refusal(ask_too(LARGE)) for _ in range(6)] == [BUSY] * 6
        assert [refusal(call) for call in [ask_too(SMALL) for _ in range(4)]] == [BUSY] * 4
        assert not any(call.done() for call in first) and counted(http, 503) == 10
        with calls(
            port, "127.0.0.2", "ModelInfer", 1, SMALL
        ) as few:  # is answered at once, for the newest of those that have most
            assert few.wait_for_ends(1) == 1
        assert refusal(first.pop()) == BUSY and counted(http, 503, "age") == 1
        go_on.set()
        for call in first:
            check_same(read(parse("ModelInferResponse", call.result(20))), expected)
        check_same(read(parse("ModelInferResponse", ask_too(LARGE).result(20))), expected)
        assert counted(http, 200, *OF_AGE) == 5


def test_a_place_comes_back_when_its_message_is_decoded(models, version, decoding):
    came, go_on = decoding
    with (
        service(models, grpc_port=0, max_requests=1, timeout_s=0.5) as (http, port),
        connected(port) as ask,
        connected(port) as ask_too,
    ):
        gone = ask(LARGE)
        wait_until(lambda: came)
        gone.cancel()
        assert [refusal(ask_too(SMALL)) for _ in range(5)] == [BUSY] * 5
        threading.Event().wait(0.7)  # longer than one waits for its turn
        assert refusal(ask_too(LARGE)) == BUSY and len(came) == 1
        assert counted(http, 499, "age") == 0 and counted(http, 503) == 6
        go_on.set()
        wait_until(lambda: counted(http, 499, "age") == 1)
        answer = parse("ModelInferResponse", ask_too(LARGE).result(20))
    check_same(read(answer), version.run("serving_default", {"embedding": X}))


def test_who_takes_no_answers_is_refused_before_it_is_computed(models, version):
    rows = 'kerasmlp_rows_total{model="age",signature="serving_default"}'
    with (
        service(models, grpc_port=0, max_requests=2) as (http, port),
        contextlib.ExitStack() as stack,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):

        def ask_from_there(count, **how):
            asked = calls(port, "127.0.0.2", "ModelInfer", count, SMALL, **how)
            return stack.enter_context(asked)

        ask_from_there(1, takes_answers=False)
        wait_until(lambda: counted(http, 200, *OF_AGE) == 1)
        with held(version) as (_, go_on):  # both begin while there is room for one
            ask_from_there(2, takes_answers=False)
            wait_until(lambda: counters(http)["kerasmlp_active_requests"] == 2)
            go_on.set()
            wait_until(lambda: counters(http)["kerasmlp_active_requests"] == 0)
        assert counted(http, 200, *OF_AGE) == 2 and counted(http, 503, *OF_AGE) == 1
        computed = counters(http)[rows]
        assert ask_from_there(2).wait_for_ends(2) == 0
        assert counted(http, 503) == 2 and counters(http)[rows] == computed == 3 * len(X)
        assert told(channel, "ServerLive").live  # another address
