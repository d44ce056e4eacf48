"""Scaling-efficiency experiments: `thalweg scale`.

grid.py        which configurations there are, and in which order they run
runs.py        one run: `thalweg train` as a process of its own, and what is read from its folder
intervals.py   means and ratios with confidence intervals
parts.py       where the time of a step went
laws.py        Amdahl's law and the universal scalability law, fitted
simulation.py  what a step would take with other numbers of workers
results.py     all of it together; scaling.json and scaling.csv
table.py, plots.py, report.py   how it is shown
scale.py       the command
"""
