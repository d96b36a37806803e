from datetime import UTC, datetime, timedelta

from asyncz import NativeAsyncIOScheduler

scheduler = NativeAsyncIOScheduler()


async def send_mail(to: str, text: str) -> None: ...


async def take_order(customer: str) -> None:
    """A request handler that is a coroutine awaits `aadd_task`."""
    await scheduler.aadd_task(send_mail, args=[customer, "Thank you!"])  # once, now
    in_a_week = datetime.now(UTC) + timedelta(days=7)
    await scheduler.aadd_task(
        send_mail, trigger="date", run_at=in_a_week, args=[customer, "Are you happy with it?"]
    )


def cancel_order(customer: str) -> None:
    """One that the framework runs in a thread calls `add_task`."""
    scheduler.add_task(send_mail, args=[customer, "We are sorry."])
