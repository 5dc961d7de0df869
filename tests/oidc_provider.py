"""An OpenID Connect provider for tests and for trying a shared server: real HTTP, real signatures, no passwords.

It has the authorization code flow with PKCE, the device flow, discovery, rotating keys and userinfo. Its pages have a
button for each user. Tests make it misbehave through its attributes.

    python -m tests.oidc_provider 9400 ada=biology,staff root=admins
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import secrets
import socket
import sys
import threading
import time
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode

import uvicorn
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT_ID = "jobmon"
CLIENT_SECRET = "secret: of/the+client"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


class OidcProvider:
    """The provider.

    Args:
        users: user -> groups.
    """

    def __init__(self, users: dict[str, list[str]]) -> None:
        self.users = users
        self.issuer = ""
        self.redirect_uri = ""
        self.has_device_flow = True
        #: Claims are only in the userinfo response.
        self.is_brief = False
        #: Replaces claims of ID tokens; None removes a claim.
        self.claims: dict[str, object] = {}
        #: Path -> response instead of the real one.
        self.faults: dict[str, Response] = {}
        #: Changes the metadata.
        self.metadata: dict[str, object] = {}
        self.signs_with = "RS256"
        self.requests: list[str] = []
        self._codes: dict[str, dict[str, str]] = {}
        self._devices: dict[str, dict[str, str]] = {}
        self._access: dict[str, str] = {}
        self.rotate()
        routes = [
            Route("/.well-known/openid-configuration", self._discovery),
            Route("/jwks", self._jwks),
            Route("/authorize", self._authorize),
            Route("/token", self._token, methods=["POST"]),
            Route("/userinfo", self._userinfo),
            Route("/device_authorization", self._start_device, methods=["POST"]),
            Route("/device", self._device),
        ]
        self._routes = Starlette(routes=routes)

    async def __call__(self, scope, receive, send):
        """Serve a request, or the fault that is set for its path."""
        if scope["type"] == "http":
            self.requests.append(scope["path"])
            if scope["path"] in self.faults:
                await self.faults[scope["path"]](scope, receive, send)
                return
        await self._routes(scope, receive, send)

    @contextlib.contextmanager
    def serving(self, port: int = 0):
        """Serve on this port of the loopback address, in a thread."""
        with socket.create_server(("127.0.0.1", port)) as line:
            self.issuer = f"http://127.0.0.1:{line.getsockname()[1]}"
            server = uvicorn.Server(uvicorn.Config(self, log_config=None, lifespan="off", timeout_graceful_shutdown=2))
            thread = threading.Thread(target=server.run, args=([line],))
            thread.start()
            try:
                yield self
            finally:
                server.should_exit = True
                thread.join()

    def rotate(self) -> None:
        """Replace the signing key; the old one is published no longer."""
        self.key = RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})

    async def _discovery(self, request):
        names = ["authorize", "token", "userinfo"]
        found = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks"}
        found |= {f"{name}_endpoint": f"{self.issuer}/{name}" for name in names}
        found["authorization_endpoint"] = found.pop("authorize_endpoint")
        if self.has_device_flow:
            found["device_authorization_endpoint"] = f"{self.issuer}/device_authorization"
        return JSONResponse({**found, **self.metadata})

    async def _jwks(self, request):
        return JSONResponse(KeySet([self.key]).as_dict(private=False))

    async def _authorize(self, request):
        given = request.query_params
        assert (given["response_type"], given["client_id"]) == ("code", CLIENT_ID)
        assert given["code_challenge_method"] == "S256"
        assert "openid" in given["scope"].split()
        if given["redirect_uri"] != (self.redirect_uri or given["redirect_uri"]):
            return HTMLResponse("unknown redirect_uri", 400)
        user = given.get("user")
        if user is None:
            return self._choice(request)
        back = {"state": given["state"]}
        if user == "":
            back |= {"error": "access_denied", "error_description": "The user declined."}
        else:
            back["code"] = secrets.token_urlsafe(24)
            self._codes[back["code"]] = {**given, "user": user}
        return RedirectResponse(f"{given['redirect_uri']}?{urlencode(back)}", 302)

    def _choice(self, request):
        here = html.escape(str(request.query_params))
        names = [(quote(user), html.escape(user) or "decline") for user in (*self.users, "")]
        links = "".join(f'<p><a href="?{here}&user={coded}">{shown}</a>' for coded, shown in names)
        return HTMLResponse(f"<title>Provider</title><h1>Who are you?</h1>{links}")

    async def _token(self, request):
        form = dict(parse_qsl((await request.body()).decode()))
        if not self._is_client(request, form):
            return JSONResponse({"error": "invalid_client"}, 401)
        if form["grant_type"] == DEVICE_GRANT:
            return self._device_token(form)
        found = self._codes.pop(form["code"], None)
        if found is None:
            return JSONResponse({"error": "invalid_grant", "error_description": "The code is not valid."}, 400)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        is_same = base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == found["code_challenge"]
        if not is_same or form["redirect_uri"] != found["redirect_uri"]:
            return JSONResponse({"error": "invalid_grant", "error_description": "PKCE failed."}, 400)
        return self._tokens(found["user"], found["nonce"])

    def _is_client(self, request, form):
        scheme, _, coded = request.headers.get("authorization", "").partition(" ")
        if scheme == "Basic":
            name, _, secret = base64.b64decode(coded).decode().partition(":")
            return (unquote_plus(name), unquote_plus(secret)) == (CLIENT_ID, CLIENT_SECRET)
        return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)

    def _tokens(self, user, nonce=None):
        access = secrets.token_urlsafe(24)
        self._access[access] = user
        claims = {
            **{"iss": self.issuer, "aud": CLIENT_ID, "sub": f"sub-of-{user}"},
            **{"iat": int(time.time()), "exp": int(time.time()) + 300, "nonce": nonce},
            **({} if self.is_brief else self._about(user)),
            **self.claims,
        }
        key = self.key if self.signs_with == "RS256" else OctKey.import_key(CLIENT_SECRET.ljust(32))
        header = {"alg": self.signs_with, "kid": self.key.kid}
        token = jwt.encode(header, {name: value for name, value in claims.items() if value is not None}, key)
        return JSONResponse({"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": token})

    def _about(self, user):
        return {"preferred_username": user, "groups": self.users.get(user, [])}

    async def _userinfo(self, request):
        user = self._access.get(request.headers.get("authorization", "").removeprefix("Bearer "))
        if user is None:
            return JSONResponse({"error": "invalid_token"}, 401)
        return JSONResponse({"sub": f"sub-of-{user}", **self._about(user)})

    async def _start_device(self, request):
        if not self._is_client(request, dict(parse_qsl((await request.body()).decode()))):
            return JSONResponse({"error": "invalid_client"}, 401)
        code, user_code = secrets.token_urlsafe(24), secrets.token_hex(4).upper()
        self._devices[code] = {"user_code": user_code}
        address = f"{self.issuer}/device"
        return JSONResponse(
            {
                **{"device_code": code, "user_code": user_code, "expires_in": 120, "interval": 0.2},
                **{"verification_uri": address, "verification_uri_complete": f"{address}?user_code={user_code}"},
            }
        )

    async def _device(self, request):
        """Let a user (`user`; empty: decline) accept the code `user_code`."""
        given = request.query_params
        if "user" not in given:
            return self._choice(request)
        for device in self._devices.values():
            if device["user_code"] == given["user_code"]:
                device["user"] = given["user"]
                return HTMLResponse("<p>You are logged in. Go back to your terminal.")
        return HTMLResponse("<p>This code is unknown.", 404)

    def _device_token(self, form):
        device = self._devices.get(form["device_code"])
        if device is None:
            return JSONResponse({"error": "expired_token"}, 400)
        if "user" not in device:
            return JSONResponse({"error": "authorization_pending"}, 400)
        del self._devices[form["device_code"]]
        if not device["user"]:
            return JSONResponse({"error": "access_denied"}, 400)
        return self._tokens(device["user"])


def main(port: str, *users: str) -> None:
    """Serve until interrupted; any redirect address is accepted. Users: `name=group,group`."""
    provider = OidcProvider({name: groups.split(",") for name, _, groups in (user.partition("=") for user in users)})
    provider.issuer = f"http://127.0.0.1:{port}"
    print(
        f"oidc_issuer: {provider.issuer}\noidc_client_id: {CLIENT_ID}\noidc_client_secret: {CLIENT_SECRET!r}",
        flush=True,
    )
    uvicorn.run(provider, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main(*sys.argv[1:])
