"""The OpenID Connect provider of a shared server: authorization code with PKCE, and the device flow.

Nothing here is needed for requests of people who have logged in: a provider that does not respond, or responds with
something else, only prevents new logins. Its metadata and keys are cached for a limited time; keys that it rotates are
fetched when a token names an unknown one. joserfc (extra `oidc`) verifies signatures and claims.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_plus, urlencode

from jobmon.agent import addresses
from jobmon.core import paths
from jobmon.core.exceptions import ConfigError, JobmonError
from jobmon.core.installing import how_to_install
from jobmon.core.texts import NAME_CHARACTERS_MAX
from jobmon.core.wire.credentials import GROUPS_MAX, USER_CHARACTERS_MAX
from jobmon.server.login import LoginRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jobmon.core.clock import Clock
    from jobmon.core.configuration import JobmonConfig
    from jobmon.server.login import Pending

DISCOVERY: Final = "/.well-known/openid-configuration"
#: Signatures that are accepted: asymmetric ones, so that nobody who knows the client's secret can sign.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
#: Maximum duration of a request to the provider, seconds.
REQUEST_SECONDS_MAX: Final = 10.0
#: Maximum size of a response of the provider, bytes.
ANSWER_BYTES_MAX: Final = 1024 * 1024
#: Maximum number of requests to the provider at once.
REQUESTS_MAX: Final = 32
#: Metadata and keys are fetched again after this long, seconds.
CACHE_SECONDS: Final = 3_600.0
#: How long they stay in use while they cannot be fetched, seconds.
STALE_SECONDS_MAX: Final = 86_400.0
#: They are not fetched again within this time, seconds, for an unknown key or after a failure.
REFETCH_SECONDS_MIN: Final = 5.0
#: Tolerated difference between the clocks of provider and server, seconds.
LEEWAY_SECONDS: Final = 60
#: Bounds of what the provider says about a device code, seconds.
DEVICE_SECONDS_MAX: Final = 1_800.0
DEVICE_INTERVAL_SECONDS: Final = 5.0
DEVICE_INTERVAL_SECONDS_MAX: Final = 60.0
#: Longest reason of the provider that is shown, characters.
SAID_CHARACTERS_MAX: Final = 300
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
_BASIC: Final = "client_secret_basic"
_PENDING: Final = ("authorization_pending", "slow_down")
_REFUSALS: Final = ("access_denied", "expired_token", "invalid_grant")

logger = logging.getLogger(__name__)


class ProviderUnavailable(JobmonError):
    """The provider does not respond now."""


class ProviderFailed(JobmonError):
    """The provider responds, but not as OpenID Connect demands, or it rejects this server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """How to use a provider. `issuer` "": there is none."""

    issuer: str = ""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    user_claim: str = "preferred_username"
    groups_claim: str = "groups"
    scopes: tuple[str, ...] = ("openid", "profile")
    #: Validity of the tokens that `jobmon login` gets, days.
    token_days: float = 30.0
    #: Address of this server's page, to which the provider leads back.
    redirect_uri: str = ""

    @classmethod
    def of(cls, config: JobmonConfig) -> OidcSettings:
        """Read the settings.

        Raises:
            ConfigError: they are incomplete or not safe, or the library is missing.
        """
        if not config.parsed("auth", "oidc_issuer"):
            return cls()
        public_url = config.parsed("server", "public_url").strip()
        names = ("issuer", "client_id", "client_secret", "user_claim", "groups_claim", "scopes", "token_days")
        settings = cls(
            **{name: config.parsed("auth", f"oidc_{name}") for name in names},
            redirect_uri=f"{public_url.rstrip('/')}/",
        )
        _require_secure("auth.oidc_issuer", settings.issuer, ConfigError)
        if not settings.client_id:
            raise ConfigError("auth.oidc_issuer needs auth.oidc_client_id: register this server with the provider.")
        if not public_url:
            raise ConfigError("auth.oidc_issuer needs server.public_url: the provider leads back to the page there.")
        _require_secure("server.public_url", public_url, ConfigError)
        if "openid" not in settings.scopes:
            raise ConfigError("auth.oidc_scopes must contain openid.")
        _require_library()
        return settings


@dataclass(frozen=True, slots=True)
class Identity:
    """Who has logged in."""

    user: str
    groups: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device code, what its user has to do, and how often and how long to ask for the result, seconds."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    interval_seconds: float
    expires_in_seconds: float


class _Cached:
    """Keeps what is fetched from the provider. If that fails, what is known stays in use.

    Args:
        fetch: fetches the value; it runs at most once at a time, and not again soon after a failure.
        monotonic: returns the time, monotonic seconds.
    """

    def __init__(self, fetch: Callable[[], Awaitable[Any]], monotonic: Callable[[], float]) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._fetching = asyncio.Lock()
        self._value: Any = None
        self._fetched_at = -math.inf
        self._failure: JobmonError | None = None
        self._failed_at = -math.inf

    async def get(self, age_seconds_max: float) -> Any:
        """Return a value that is not older than that, if it can be had.

        Raises:
            ProviderUnavailable, ProviderFailed: there is none.
        """
        async with self._fetching:
            if self._value is not None and self._monotonic() - self._fetched_at < age_seconds_max:
                return self._value
            if self._monotonic() - self._failed_at >= REFETCH_SECONDS_MIN:
                try:
                    self._value, self._failure = await self._fetch(), None
                    self._fetched_at = self._monotonic()
                except JobmonError as error:
                    self._failure, self._failed_at = error, self._monotonic()
            if self._failure is not None and self._monotonic() - self._fetched_at >= STALE_SECONDS_MAX:
                raise type(self._failure)(str(self._failure))
            return self._value


class Provider:
    """Talks to the provider. Belongs to one event loop.

    Args:
        settings: of the provider.
        now: returns the time, seconds since 1970.
        monotonic: returns the time, monotonic seconds.
    """

    def __init__(self, settings: OidcSettings, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self.settings = settings
        self._now = now
        self._metadata = _Cached(self._discovered, monotonic)
        self._keys = _Cached(self._fetched_keys, monotonic)
        self._requests = 0

    # -- authorization code ----------------------------------------------------------------------------------------

    async def authorization_url(self, state: str, pending: Pending) -> str:
        """Return the address at which to log in.

        Raises:
            ProviderUnavailable, ProviderFailed: the provider does not say where.
        """
        endpoint = (await self._described())["authorization_endpoint"]
        query = {
            **{"response_type": "code", "client_id": self.settings.client_id},
            **{"redirect_uri": self.settings.redirect_uri, "scope": " ".join(self.settings.scopes)},
            **{"state": state, "nonce": pending.nonce},
            **{"code_challenge": pending.challenge, "code_challenge_method": "S256"},
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def exchange(self, code: str, pending: Pending) -> Identity:
        """Return who has logged in, in exchange for the code that the provider has passed to the page.

        Raises:
            LoginRefused: the code or the provider's token is not valid.
            ProviderUnavailable, ProviderFailed: the provider does not respond as it should.
        """
        form = {
            **{"grant_type": "authorization_code", "code": code},
            **{"redirect_uri": self.settings.redirect_uri, "code_verifier": pending.verifier},
        }
        found = await self._token(form)
        if "error" in found:
            raise self._refusal(found)
        return await self._identity(found, pending.nonce)

    # -- device flow -----------------------------------------------------------------------------------------------

    async def start_device(self) -> Device | None:
        """Start a login on any device; None: the provider has no device flow.

        Raises:
            ProviderUnavailable, ProviderFailed: the provider does not respond as it should.
        """
        endpoint = (await self._described()).get("device_authorization_endpoint")
        if endpoint is None:
            return None
        status, found = await self._post(endpoint, {"scope": " ".join(self.settings.scopes)})
        names = "device_code", "user_code", "verification_uri"
        texts = {name: str(found[name]) for name in names if isinstance(found.get(name), str) and found[name]}
        if status != 200 or len(texts) < len(names):
            raise self._failed(f"rejects the device flow: {_said(found)}")
        _require_secure("its verification_uri", texts["verification_uri"], ProviderFailed)
        complete = found.get("verification_uri_complete")
        return Device(
            **texts,
            verification_uri_complete=complete if isinstance(complete, str) else "",
            interval_seconds=_seconds(found.get("interval"), DEVICE_INTERVAL_SECONDS, DEVICE_INTERVAL_SECONDS_MAX),
            expires_in_seconds=_seconds(found.get("expires_in"), DEVICE_SECONDS_MAX, DEVICE_SECONDS_MAX),
        )

    async def poll_device(self, device_code: str) -> Identity | str:
        """Return who has logged in with a device code, or the provider's word for "not yet".

        Raises:
            LoginRefused: the user declined, took too long, or the provider's token is not valid.
            ProviderUnavailable, ProviderFailed: the provider does not respond as it should.
        """
        found = await self._token({"grant_type": DEVICE_GRANT, "device_code": device_code})
        error = found.get("error")
        if error in _PENDING:
            return str(error)
        if error is not None:
            raise self._refusal(found)
        return await self._identity(found, None)

    # -- what the provider says ------------------------------------------------------------------------------------

    async def _described(self) -> Mapping[str, Any]:
        """Return the provider's metadata.

        Raises:
            ProviderUnavailable, ProviderFailed: there is none.
        """
        found: Mapping[str, Any] = await self._metadata.get(CACHE_SECONDS)
        return found

    async def _discovered(self) -> dict[str, Any]:
        issuer = self.settings.issuer
        status, found = await self._request("GET", issuer.rstrip("/") + DISCOVERY)
        if status != 200:
            raise self._failed(f"answers its discovery with status {status}")
        if found.get("issuer") != issuer:
            raise self._failed(f"calls itself {found.get('issuer')!r}; set auth.oidc_issuer to its exact name")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            _require_secure(f"its {name}", found.get(name), ProviderFailed)
        for name in ("device_authorization_endpoint", "userinfo_endpoint"):
            if found.get(name) is not None:
                _require_secure(f"its {name}", found[name], ProviderFailed)
        return found

    async def _token(self, form: dict[str, str]) -> dict[str, Any]:
        """Return the answer of the token endpoint, which may be an error."""
        status, found = await self._post((await self._described())["token_endpoint"], form)
        if status >= 500 or (status != 200 and not isinstance(found.get("error"), str)):
            raise self._failed(f"answers the exchange of a code with status {status}")
        if status != 200 and found["error"] not in (*_PENDING, *_REFUSALS):
            raise self._failed(f"rejects this server: {_said(found)}. Check auth.oidc_client_id and its secret")
        return found

    def _refusal(self, found: Mapping[str, Any]) -> LoginRefused:
        return LoginRefused(f"The login provider rejects this login: {_said(found)}. Log in again.")

    async def _identity(self, found: Mapping[str, Any], nonce: str | None) -> Identity:
        """Return the user of the provider's answer, whose token is verified."""
        token = found.get("id_token")
        if not isinstance(token, str):
            raise self._failed("sends no ID token; the scope openid is needed")
        claims = await self._verified(token, nonce)
        wanted = [name for name in (self.settings.user_claim, self.settings.groups_claim) if name]
        endpoint = (await self._described()).get("userinfo_endpoint")
        if endpoint and any(name not in claims for name in wanted) and isinstance(found.get("access_token"), str):
            bearer = {"Authorization": f"Bearer {found['access_token']}"}
            status, more = await self._request("GET", endpoint, headers=bearer)
            if status == 200 and more.get("sub") == claims["sub"]:
                claims = {**more, **claims}
        return Identity(_user(claims, self.settings.user_claim), _groups(claims.get(self.settings.groups_claim)))

    async def _verified(self, token: str, nonce: str | None) -> dict[str, Any]:
        """Return the claims of an ID token.

        Raises:
            LoginRefused: it is not valid.
        """
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError, JoseError

        expected: dict[str, Any] = {
            "iss": {"essential": True, "value": self.settings.issuer},
            "aud": {"essential": True, "value": self.settings.client_id},
            **{name: {"essential": True} for name in ("exp", "iat", "sub")},
        }
        if nonce is not None:
            expected["nonce"] = {"essential": True, "value": nonce}
        registry = jwt.JWTClaimsRegistry(now=int(self._now()), leeway=LEEWAY_SECONDS, **expected)
        try:
            try:
                claims = jwt.decode(token, await self._keys.get(CACHE_SECONDS), algorithms=ALGORITHMS).claims
            except InvalidKeyIdError:
                rotated = await self._keys.get(REFETCH_SECONDS_MIN)
                claims = jwt.decode(token, rotated, algorithms=ALGORITHMS).claims
            registry.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            logger.warning("the provider's ID token is not valid: %s", error)
            raise LoginRefused(f"The ID token of the login provider is not valid: {error}.") from error
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and claims.get("azp") != self.settings.client_id:
            raise LoginRefused("The ID token of the login provider was issued for another application.")
        return dict(claims)

    async def _fetched_keys(self) -> Any:
        """Return the provider's keys.

        Raises:
            ProviderUnavailable, ProviderFailed: the provider does not tell them.
        """
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        address = (await self._described())["jwks_uri"]
        status, found = await self._request("GET", address)
        keys = found.get("keys")
        try:
            if status != 200 or not isinstance(keys, list):
                raise ValueError(f"status {status}")
            return KeySet.import_key_set({"keys": [key for key in keys if _is_public(key)]})
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise self._failed(f"has no usable keys at {address} ({error})") from error

    # -- requests --------------------------------------------------------------------------------------------------

    async def _post(self, url: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Post a form as this client, by the method that the provider prefers: HTTP Basic unless it has only the other.

        A client without a secret is a public one, which only names itself.
        """
        name, secret = self.settings.client_id, self.settings.client_secret
        methods = (await self._described()).get("token_endpoint_auth_methods_supported") or [_BASIC]
        if secret and _BASIC in methods:
            pair = base64.b64encode(f"{quote_plus(name)}:{quote_plus(secret)}".encode()).decode()
            return await self._request("POST", url, form, {"Authorization": f"Basic {pair}"})
        return await self._request(
            "POST", url, {**form, "client_id": name, **({"client_secret": secret} if secret else {})}
        )

    async def _request(
        self, method: str, url: str, form: dict[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Send a request to the provider; return status and body.

        Raises:
            ProviderUnavailable: there is no response, or too many logins are in progress.
            ProviderFailed: the response is not JSON.
        """
        import aiohttp

        if self._requests >= REQUESTS_MAX:
            raise ProviderUnavailable("Too many people are logging in at this moment. Retry in a few seconds.")
        self._requests += 1
        limit = aiohttp.ClientTimeout(total=REQUEST_SECONDS_MAX)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit, trust_env=True) as session,
                session.request(method, url, data=form, headers=headers, allow_redirects=False) as response,
            ):
                content = b""
                async for part in response.content.iter_chunked(64 * 1024):
                    content += part
                    if len(content) > ANSWER_BYTES_MAX:
                        raise self._failed(f"sends more than {ANSWER_BYTES_MAX} bytes")
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            logger.warning("the provider does not respond at %s: %s", url, why)
            raise ProviderUnavailable(
                f"The login provider {self.settings.issuer} does not respond ({why}). Sessions and tokens stay valid;"
                " retry the login later."
            ) from error
        finally:
            self._requests -= 1
        try:
            found = json.loads(content)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._failed(f"does not answer with a JSON object (status {status})")
        return status, found

    def _failed(self, what: str) -> ProviderFailed:
        logger.warning("the provider %s %s", self.settings.issuer, what)
        return ProviderFailed(f"The login provider {self.settings.issuer} {what}. Sessions and tokens stay valid.")


def open_provider(settings: OidcSettings, clock: Clock) -> Provider | None:
    """Return the provider through which people log in; None: there is none."""
    if not settings.issuer:
        return None
    return Provider(settings, lambda: clock.now().timestamp(), clock.monotonic)


def _require_library() -> None:
    try:
        import joserfc  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"OpenID Connect needs joserfc. Install it, {how_to_install('oidc')}") from error


def _require_secure(what: str, url: Any, error: type[JobmonError]) -> None:
    """Reject an address that is not https, unless it is on this host."""
    try:
        address = addresses.parse(str(url).partition("?")[0])
    except ValueError as invalid:
        raise error(f"{what}: {invalid}") from None
    if not address.is_secure and not paths.is_loopback(address.host) and address.host != "localhost":
        raise error(f"{what}: {url} must begin with https://, because secrets are sent there.")


def _user(claims: Mapping[str, Any], name: str) -> str:
    """Return the user that a claim names.

    Raises:
        LoginRefused: it names none, or a name that cannot be stored or shown.
    """
    user = claims.get(name)
    if not isinstance(user, str) or not user:
        raise LoginRefused(f"The login provider does not say who you are: there is no claim {name!r}.")
    if name == "email" and claims.get("email_verified") is not True:
        raise LoginRefused("The login provider has not verified your e-mail address, which names users here.")
    if len(user) > USER_CHARACTERS_MAX or not user.isprintable() or user != user.strip():
        raise LoginRefused(f"Claim {name!r} of the login provider is not usable as the name of a user.")
    return user


def _groups(claim: Any) -> frozenset[str]:
    """Return the groups in a claim; names that cannot be stored or shown give no rights, and neither do too many."""
    names = [claim] if isinstance(claim, str) else claim if isinstance(claim, list) else []
    usable = sorted(
        {
            name
            for name in names
            if isinstance(name, str) and 0 < len(name) <= NAME_CHARACTERS_MAX and name.isprintable()
        }
    )
    if len(usable) > GROUPS_MAX:
        logger.warning("a user has %d groups; the first %d count", len(usable), GROUPS_MAX)
    return frozenset(usable[:GROUPS_MAX])


def _is_public(key: Any) -> bool:
    """Return whether a key can verify a signature of `ALGORITHMS`; others in the set are ignored."""
    return isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"


def _seconds(value: Any, default: float, most: float) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return min(float(value), most) if is_number else default


def _said(found: Mapping[str, Any]) -> str:
    """Return what an error response says, in one short line."""
    text = str(found.get("error_description") or found.get("error") or "no reason given")
    return "".join(letter if letter.isprintable() else " " for letter in text)[:SAID_CHARACTERS_MAX].rstrip(".")
