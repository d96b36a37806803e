"""Moving over from other schedulers, for once."""
