"""A web app for several workers with one schedule: `uvicorn cluster_app:app --workers 4`."""

import asyncio
import html
import os
import random

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from asyncz import NativeAsyncIOScheduler, Run
from asyncz.stores.sqlalchemy import SQLAlchemyStore

store = SQLAlchemyStore(os.environ.get("DEMO_DATABASE", "sqlite:///demo.db"))
scheduler = NativeAsyncIOScheduler(
    stores={"default": store},
    identity=f"worker-{os.getpid()}",  # enough on one machine; it is unique by default
    lease=4,  # seconds after which a worker that was killed is missed; 30 by default
)


@scheduler.add_task(trigger="interval", seconds=1, id="tick", max_instances=3)
async def tick() -> None:
    await asyncio.sleep(random.uniform(0.1, 0.9))


@scheduler.add_task(trigger="interval", seconds=10, id="report")
async def report() -> None:
    await asyncio.sleep(8)  # long enough to kill its worker meanwhile


def row(run: Run, names: dict[str, str]) -> str:
    note = run.reason or run.error or ""
    if run.attempt > 1:  # there are no retries here
        note = f"taken over, as its worker was killed {note}".strip()
    cells = (
        f"{run.scheduled_time:%H:%M:%S}", run.task_id, run.state.value,
        names.get(run.owner or "", run.owner or ""),
        f"{run.attempt}" if run.attempt else "", note,
    )  # fmt: skip
    return f"<tr>{''.join(f'<td>{html.escape(cell)}' for cell in cells)}"


async def home(request: Request) -> HTMLResponse:
    runs = await scheduler.aget_runs(limit=40)
    workers = await scheduler.aget_scheduler_instance_infos()
    names = {record.node.id: record.node.identity for record in await store.get_nodes()}
    alive = "".join(
        f"<li>{html.escape(worker.identity)}: {worker.state_label}" for worker in workers
    )
    return HTMLResponse(
        f"""<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="1">
        <title>One schedule, many workers</title>
        <style>body {{ font: 14px monospace }} td, th {{ padding: 0 1em; text-align: left }}</style>
        <h1>One schedule, {len(workers)} workers</h1><ul>{alive}</ul>
        <p>Kill one with <code>kill -9</code> and its number: each second still has one
        row, and a run that was cut off gets another worker and a second attempt.</p>
        <table><tr><th>due<th>task<th>state<th>worker<th>attempt<th>
        {"".join(row(run, names) for run in runs)}</table>"""
    )


app = Starlette(lifespan=scheduler.lifespan(), routes=[Route("/", home)])
