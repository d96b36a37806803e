"""A deterministic simulation of several schedulers on one store, with faults, in virtual time."""
