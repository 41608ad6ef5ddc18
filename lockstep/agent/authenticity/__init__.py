"""Whether a delivery is from whom it says: one module per scheme, over the raw bytes, before anything is parsed."""
