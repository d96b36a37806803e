from fastapi_app import app, scheduler
from starlette.testclient import TestClient


def test_an_order_is_taken() -> None:
    with TestClient(app) as client:  # enters the lifespan: the scheduler runs in here
        assert client.post("/orders?to=ada@example.com").status_code == 201
        assert scheduler.running
    assert not scheduler.running
