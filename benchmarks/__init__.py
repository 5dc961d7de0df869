"""Benchmarks: `make bench` runs every case together with its floor and prints ratios.

Start with `cases.py`, which defines what is measured and which ratios are required. `workload.py` is the script that a
case times as a whole process; `floor.py` is what the machine can do without Jobmon.
"""
