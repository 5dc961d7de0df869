"""The operations of the server, as functions `(transaction, ids..., request) -> answer`, independent of HTTP.

Each is idempotent: a repeated request gets the same answer and changes nothing. Statuses change only through
`transitions`. Start with `reporting.py`.
"""
