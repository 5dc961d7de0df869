"""The server: an HTTP application over an SQL database that holds the complete record.

Imports core and nothing else of Jobmon. See `app.py` for how the application is assembled,
`usecases/reporting.py` for what a request does, `transitions` for how a status changes
(the only package that writes one) and `writer.py` for how requests share a transaction.
"""
