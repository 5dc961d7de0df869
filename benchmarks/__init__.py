"""Benchmarks: `make bench` runs every case beside its floor in one run and prints ratios.

Start with `cases.py`: what is measured and which ratio is due. `workload.py` is the script that a case times as a whole
process; `floor.py` is what the machine can do without us.
"""
