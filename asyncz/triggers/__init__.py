"""When to run: the triggers, all of them pure values."""

from asyncz.triggers.base import BaseTrigger
from asyncz.triggers.calendarinterval import CalendarIntervalTrigger
from asyncz.triggers.combination import AndTrigger, OrTrigger
from asyncz.triggers.cron.trigger import CronTrigger
from asyncz.triggers.date import DateTrigger
from asyncz.triggers.interval import IntervalTrigger
from asyncz.triggers.registry import load_trigger
from asyncz.triggers.shutdown import ShutdownTrigger

__all__ = [
    "AndTrigger",
    "BaseTrigger",
    "CalendarIntervalTrigger",
    "CronTrigger",
    "DateTrigger",
    "IntervalTrigger",
    "OrTrigger",
    "ShutdownTrigger",
    "load_trigger",
]
