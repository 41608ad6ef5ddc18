"""What each vendor's alert says, in Lockstep's words: one module per format, each with `read(document, source)`."""
