"""Stages in order: check, search, recover, gate, report, register. The only part that knows all the others."""
