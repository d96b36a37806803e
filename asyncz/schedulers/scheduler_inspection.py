"""The scheduler's public operations that look at schedulers: each in both forms."""

from __future__ import annotations

from collections.abc import Iterable

from asyncz.enums import NodeState, SchedulerState
from asyncz.schedulers.bridge import Bridge, blocking, on_engine
from asyncz.schedulers.engine import Engine
from asyncz.schedulers.inspection import Health, SchedulerInfo, SchedulerInstanceInfo
from asyncz.schedulers.operations import Operations
from asyncz.stores.cluster import NodeRecord
from asyncz.timezones import zone_name

__all__ = ["SchedulerInspection"]


class SchedulerInspection:
    """What goes on, in this scheduler and in those that share its stores."""

    _bridge: Bridge
    _engine: Engine
    _operations: Operations

    def health(self) -> Health:
        """Whether all is well, without I/O: it may be asked at any time, on any thread."""
        engine = self._engine
        degraded = {lane.alias: lane.error for lane in list(engine.lanes.values()) if lane.error}
        overdue = engine.overdue.tasks
        status = "degraded" if degraded or overdue else "ok"
        if engine.state is SchedulerState.STATE_STOPPED:
            status = "stopped"
        return Health(status=status, state=engine.state.label, degraded=degraded, overdue=overdue)

    @on_engine
    async def aget_scheduler_info(self) -> SchedulerInfo:
        """A snapshot of the scheduler with the numbers of its tasks."""
        return await self._scheduler_info()

    get_scheduler_info = blocking(aget_scheduler_info)

    @on_engine
    async def aget_scheduler_instance_infos(self) -> tuple[SchedulerInstanceInfo, ...]:
        """The schedulers that share the stores of this one: this one first, then as they joined.

        Those that were shut down are left out; one whose lease has run out is `stale`.
        """
        own = await self._own_instance_info()
        found = {own.node_key: own}
        for alias, record in _latest(await self._operations.nodes()):
            if record.state is NodeState.LEFT or record.node.identity == own.identity:
                continue
            other = self._instance_of(alias, record)
            before = found.get(other.node_key)
            if before is not None:
                aliases = (*before.store_aliases, alias)
                running = before.running_task_count + other.running_task_count
                update = {"store_aliases": aliases, "running_task_count": running}
                other = before.model_copy(update=update)
            found[other.node_key] = other
        return tuple(found.values())

    get_scheduler_instance_infos = blocking(aget_scheduler_instance_infos)

    async def _scheduler_info(self) -> SchedulerInfo:
        engine = self._engine
        counts, degraded = await self._operations.counts_of_healthy()
        started = engine.started_at
        uptime = (engine.clock.now() - started).total_seconds() if started is not None else None
        running = engine.state is not SchedulerState.STATE_STOPPED
        return SchedulerInfo(
            identity=engine.identity,
            state=engine.state,
            state_label=engine.state.label,
            running=running,
            standby=running and engine.is_standby,
            started_at=started,
            uptime_seconds=max(0.0, uptime) if uptime is not None else None,
            timezone=zone_name(engine.timezone),
            executor_aliases=tuple(sorted(engine.executors)),
            store_aliases=tuple(sorted(engine.stores)),
            task_count=sum(counts),
            scheduled_task_count=counts.scheduled,
            paused_task_count=counts.paused,
            pending_task_count=counts.pending,
            quarantined_task_count=counts.quarantined,
            submitted_task_count=sum(counts),
            running_task_count=sum(engine.instances.values()),
            degraded=degraded,
            store_retry_interval=engine.settings.store_retry_interval,
            startup_delay=engine.settings.startup_delay,
        )

    async def _own_instance_info(self) -> SchedulerInstanceInfo:
        info = await self._scheduler_info()
        shared = set(SchedulerInstanceInfo.model_fields) & set(SchedulerInfo.model_fields)
        return SchedulerInstanceInfo(
            scope="this",
            active=info.running and not info.standby,
            stale=not info.running,
            last_seen_at=self._engine.clock.now(),
            heartbeat_age_seconds=0.0,
            stale_after_seconds=self._engine.settings.lease,
            **{name: getattr(info, name) for name in shared},
        )

    def _instance_of(self, alias: str, record: NodeRecord) -> SchedulerInstanceInfo:
        now = self._engine.clock.now()
        alive = record.state is NodeState.ALIVE
        state = SchedulerState.STATE_RUNNING if alive else SchedulerState.STATE_STOPPED
        return SchedulerInstanceInfo(
            identity=record.node.identity,
            scope="store",
            host=record.node.host,
            process_id=record.node.process_id,
            state=state,
            state_label=record.state.value,
            active=alive,
            stale=not alive,
            started_at=record.joined_at,
            last_seen_at=record.seen_at,
            uptime_seconds=max(0.0, (record.seen_at - record.joined_at).total_seconds()),
            heartbeat_age_seconds=max(0.0, (now - record.seen_at).total_seconds()),
            stale_after_seconds=self._engine.settings.lease,
            store_aliases=(alias,),
            running_task_count=record.running,
        )


def _latest(nodes: Iterable[tuple[str, NodeRecord]]) -> Iterable[tuple[str, NodeRecord]]:
    """Of each scheduler in each store the last node: it joins again after it was taken for dead."""
    found = {}
    for alias, record in nodes:
        node = record.node
        found[alias, node.identity, node.host, node.process_id] = (alias, record)
    return found.values()
