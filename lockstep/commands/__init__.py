"""The commands of the command line, by what they are about; `lockstep/cli.py` puts them together."""
