"""The server: one HTTP application over one SQL database, which holds everything that is known.

Imports core and nothing else of Jobmon. Open `app.py` for how it is put together, then
`usecases/reporting.py` for what a request does, `transitions.py` for how a status changes
(the only module that writes one) and `writer.py` for how requests share a transaction.
"""
