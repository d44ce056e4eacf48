"""The worker: sample, forward, backward, push."""
