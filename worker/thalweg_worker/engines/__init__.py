"""Gradient engines: what computes loss and gradient of one microbatch.

`protocol.py` says what an engine is; each other file is one.
"""
