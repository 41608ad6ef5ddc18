"""The demo: the whole life of a model on three clouds, on this machine. Run it with `lockstep demo`."""
