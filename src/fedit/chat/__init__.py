"""Talking with the model of a run, alone or beside others, in the terminal or the browser."""
