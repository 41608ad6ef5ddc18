"""What an alert says, what it is about, and what it may start. No I/O."""
