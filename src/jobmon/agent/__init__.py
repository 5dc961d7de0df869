"""Code shared by all programs that run commands or report on them.

Commands: `commands.py` on top of `attempts.py`, `starting.py`, `processes.py`, `memory.py`, `cgroups.py`; `outputs.py`
defines where commands write, and `outcome.py` what their exits mean. Reports: `settlement.py`, `journal.py`,
`undelivered.py`. The server: `servers.py`, `requests.py`, `http.py`. All programs that run commands have the loop in
`program.py` and treat their attempts as `running.py` does; `host.py` is the host agent.

The package imports nothing else from Jobmon and little of the standard library, because workers load it with
`python -I -S`. Start with `program.py`.
"""
