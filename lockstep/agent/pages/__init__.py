"""The status page's templates, style sheet and script."""
