"""The long-lived process: alerts come in over HTTP, rollbacks go out, a page shows what serves."""
