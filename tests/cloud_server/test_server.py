"""Health, reflection, and a handler for every rpc of the contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from typer.testing import CliRunner

from ciar.cloud_server.server import SERVICE_NAME
from ciar.cloud_server.service import CiarServicer
from ciar.shared.cli import app
from ciar.v1 import service_pb2 as pb
from tests.support.running_cloud import RunningCloud

DEADLINE_S = 30


def test_every_rpc_has_a_handler() -> None:
    for method in pb.DESCRIPTOR.services_by_name["CiarService"].methods:
        assert method.name in vars(CiarServicer)
        assert inspect.iscoroutinefunction(getattr(CiarServicer, method.name))


@pytest.mark.parametrize("service", ["", SERVICE_NAME])
def test_health_is_serving(cloud: RunningCloud, service: str) -> None:
    with grpc.insecure_channel(cloud.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=DEADLINE_S)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_health_of_an_unknown_service_is_not_found(cloud: RunningCloud) -> None:
    with grpc.insecure_channel(cloud.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=DEADLINE_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_says_when_draining_begins(start_cloud: Callable[..., RunningCloud]) -> None:
    cloud = start_cloud(drain_s=DEADLINE_S)
    with grpc.insecure_channel(cloud.address) as channel:
        statuses = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        assert next(statuses).status == health_pb2.HealthCheckResponse.SERVING
        stopped = cloud.begin_stop()
        assert next(statuses).status == health_pb2.HealthCheckResponse.NOT_SERVING
        statuses.cancel()
        stopped.result(DEADLINE_S)


def test_the_health_command(start_cloud: Callable[..., RunningCloud]) -> None:
    cloud = start_cloud()
    result = CliRunner().invoke(app, ["health", "--address", cloud.address])
    assert (result.exit_code, result.output) == (0, "SERVING\n")
    cloud.begin_stop().result(DEADLINE_S)
    result = CliRunner().invoke(app, ["health", "--address", cloud.address])
    assert (result.exit_code, result.output) == (1, f"{cloud.address}: UNAVAILABLE\n")


def test_reflection_lists_the_services(cloud: RunningCloud) -> None:
    with grpc.insecure_channel(cloud.address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        (reply,) = stub.ServerReflectionInfo(iter([request]), timeout=DEADLINE_S)
    names = {service.name for service in reply.list_services_response.service}
    assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names


def test_stopping_ends_the_engine(start_cloud: Callable[..., RunningCloud]) -> None:
    cloud = start_cloud()
    assert cloud.server.engine.alive
    cloud.begin_stop().result(DEADLINE_S)
    assert not cloud.server.engine.alive
