"""Weight changes on a frozen backbone: offsets, splices, low-rank adapters."""
