"""The cron trigger."""

from asyncz.triggers.cron.trigger import CronTrigger

__all__ = ["CronTrigger"]
