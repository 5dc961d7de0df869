"""What can be asked of the server, as functions `(transaction, ids..., request) -> answer`, free of HTTP.

Each may be repeated: the same request gives the same answer and changes nothing. Statuses change through
`transitions` only. Start with `reporting.py`.
"""
