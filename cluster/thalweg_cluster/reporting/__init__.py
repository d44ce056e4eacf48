"""What a person sees of a run, and what it leaves on disk.

files.py     summary.json, metrics.jsonl, job.toml, weights.safetensors
progress.py  the line while it runs
closing.py   the tables when it is over
wording.py   how a warning begins
"""
