"""The HTTP interface: `table.py` lists every route with its messages, `endpoint.py` turns one into an ASGI application,
`polls.py` holds requests open, `document.py` describes all routes as OpenAPI.
"""
