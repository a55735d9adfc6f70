"""JSON web tokens: which are believed, and which are not."""

import base64
import hashlib
import hmac
import json
import os
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from accounts.identity import REFUSED, AuthBody, Facts, Identity, authenticate
from imgo_site.database_clock import DatabaseClock, Reading, boot_time
from imgo_site.errors import NotAuthenticated, Unavailable
from push.session.websocket_framing import REASON_MAX

SECRET = "a secret of at least thirty-two bytes"
NOW = int(time.time())


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


KEY, OTHER_KEY = new_key(), new_key()


def pem(key: rsa.RSAPrivateKey) -> str:
    public = key.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(serialization.Encoding.PEM, form).decode()


def signed(key: Any = SECRET, algorithm: str = "HS256", kid: str = "", **claims: Any) -> str:
    """A token that is valid for an hour, unless its claims say otherwise; None leaves one out."""
    headers = {"kid": kid} if kid else None
    claims = {"sub": "u1", "exp": NOW + 3600, **claims}
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None},
        key,
        algorithm,
        headers,
    )


def clock_at(unix: float) -> DatabaseClock:
    """A clock that has just read this time, whatever the host's says."""
    clock, now = DatabaseClock(), boot_time()
    clock.take(Reading(unix, now, now))
    return clock


def by_hand(header: Any, claims: Any, secret: bytes = b"") -> str:
    """A token of whatever shape, with an HMAC signature when there is a secret."""
    first = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, claims)
    )
    signature = hmac.digest(secret, first.encode(), hashlib.sha256) if secret else b""
    return f"{first}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


async def who(token: str, now: float = NOW) -> Identity:
    """No fixture gives these tests a database: a JWT costs no query."""
    return await authenticate(AuthBody(token=token), Facts("tcp", clock=clock_at(now)))


async def is_refused(token: str, now: float = NOW) -> bool:
    with pytest.raises(NotAuthenticated) as refusal:
        await who(token, now)
    return refusal.value.message == REFUSED


@pytest.fixture
def secret(imgo):
    imgo(JWT_SECRET=SECRET)


@pytest.fixture
def public_key(imgo):
    imgo(JWT_PUBLIC_KEY=pem(KEY))


async def test_hs256(secret):
    assert await who(signed()) == Identity("u1", None, NOW + 3605, "jwt")


async def test_rs256(public_key):
    assert await who(signed(KEY, "RS256")) == Identity("u1", None, NOW + 3605, "jwt")


async def test_the_public_key_may_be_in_a_file(imgo, tmp_path):
    path = tmp_path / "key.pem"
    path.write_text(pem(KEY))
    imgo(JWT_PUBLIC_KEY=str(path))
    assert (await who(signed(KEY, "RS256"))).key == "u1"


async def test_a_public_key_file_that_is_not_there_refuses(imgo, tmp_path):
    imgo(JWT_PUBLIC_KEY=str(tmp_path / "missing.pem"))
    assert await is_refused(signed(KEY, "RS256"))


async def test_the_claims_become_the_identity(secret):
    token = signed(rooms=["a", "live.*"], join=["7"], exp=NOW + 60)
    expected = Identity("u1", ("a", "live.*"), NOW + 65, "jwt", join=("7",))
    assert await who(token) == expected


async def test_the_claims_may_have_other_names(imgo):
    imgo(JWT_SECRET=SECRET, JWT_KEY_CLAIM="uid", JWT_ROOMS_CLAIM="channels", JWT_JOIN_CLAIM="rid")
    found = await who(signed(uid="u2", channels=["c"], rid=["7"], rooms="ignored", join="ignored"))
    assert (found.key, found.rooms, found.join) == ("u2", ("c",), ("7",))


async def test_a_number_as_subject_is_imgos_user_id(secret):
    assert (
        await who(by_hand({"alg": "HS256"}, {"sub": 42, "exp": NOW + 60}, SECRET.encode()))
    ).key == "42"


async def test_another_secret_or_key_is_refused(imgo):
    imgo(JWT_SECRET=SECRET, JWT_PUBLIC_KEY=pem(KEY))
    assert await is_refused(signed("another secret of thirty-two bytes!"))
    assert await is_refused(signed(OTHER_KEY, "RS256"))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 1, ["HS256"], {"a": 1}])
async def test_no_algorithm_is_refused(imgo, alg):
    imgo(JWT_SECRET=SECRET, JWT_PUBLIC_KEY=pem(KEY))
    assert await is_refused(by_hand({"alg": alg}, {"sub": "u1"}))
    assert await is_refused(by_hand({"alg": alg}, {"sub": "u1"}, SECRET.encode()))


async def test_hs256_with_the_public_key_as_secret_is_refused(public_key):
    assert await is_refused(by_hand({"alg": "HS256"}, {"sub": "u1"}, pem(KEY).encode()))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_another_hmac_is_refused(secret, algorithm):
    assert await is_refused(signed("s" * 64, algorithm))


async def test_another_algorithm_of_the_same_key_is_refused(public_key):
    assert await is_refused(signed(KEY, "PS256"))
    assert await is_refused(signed(KEY, "RS512"))
    assert await is_refused(signed(ec.generate_private_key(ec.SECP256R1()), "ES256"))


async def test_a_secret_alone_believes_no_rs256(secret):
    assert await is_refused(signed(KEY, "RS256"))


async def test_a_changed_claim_is_refused(secret):
    head, _, tail = signed().split(".")
    changed = by_hand({}, {"sub": "admin"}).split(".")[1]
    assert await is_refused(f"{head}.{changed}.{tail}")


@pytest.mark.parametrize("leeway", [0, 30])
async def test_jwt_times_are_judged_with_the_leeway(imgo, leeway):
    """The session ends when its token would not be accepted any more."""
    imgo(JWT_SECRET=SECRET, JWT_LEEWAY=leeway)
    found = await who(signed(exp=NOW), now=NOW + leeway - 1)
    assert found.expires_at == NOW + leeway
    assert await is_refused(signed(exp=NOW), now=NOW + leeway + 0.1)
    for claim in ("nbf", "iat"):
        assert (await who(signed(**{claim: NOW}), now=NOW - leeway + 0.1)).key == "u1"
        assert await is_refused(signed(**{claim: NOW}), now=NOW - leeway - 1)


async def test_jwt_is_judged_by_the_clock_of_the_facts(secret):
    """Not by the host's, which may be hours off."""
    token = signed(exp=NOW - 7200)
    assert (await who(token, now=NOW - 7300)).key == "u1"
    assert await is_refused(signed(exp=NOW + 60), now=NOW + 7200)


async def test_jwt_before_the_first_reading_of_the_clock_is_unavailable(secret):
    with pytest.raises(Unavailable):
        await authenticate(AuthBody(token=signed()), Facts("tcp"))


async def test_jwt_without_exp_passes_only_if_it_is_not_required(imgo):
    imgo(JWT_SECRET=SECRET)
    with pytest.raises(NotAuthenticated, match="'exp'"):
        await who(signed(exp=None))
    imgo(JWT_REQUIRE_EXP=False)
    assert await who(signed(exp=None)) == Identity("u1", None, None, "jwt")


async def test_issuer_and_audience_must_match_when_set(imgo):
    imgo(JWT_SECRET=SECRET, JWT_ISSUER="https://id.example", JWT_AUDIENCE="push")
    right = {"iss": "https://id.example", "aud": ["push", "mail"]}
    assert (await who(signed(**right))).key == "u1"
    assert await is_refused(signed(**right | {"iss": "https://evil.example"}))
    assert await is_refused(signed(**right | {"aud": "mail"}))
    assert await is_refused(signed(iss=right["iss"]))
    assert await is_refused(signed(aud="push"))


@pytest.mark.parametrize(
    "aud", ["whoever", ["whoever"], ["a", "b"], 7, {"a": 1}, [7], [], "", None]
)
async def test_jwt_for_another_audience_is_refused_while_none_is_set(secret, aud):
    claims = {"sub": "u1", "exp": NOW + 60, "aud": aud}
    assert await is_refused(by_hand({"alg": "HS256"}, claims, SECRET.encode()))


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": ""},
        {"sub": None},
        {"sub": True},
        {"sub": 1.5},
        {"sub": ["u1"]},
        {"sub": "a\0"},
        {"sub": "x" * 256},
        {"rooms": "live"},
        {"rooms": "*"},
        {"rooms": {"live": 1}},
        {"rooms": [1]},
        {"rooms": [""]},
        {"rooms": 7},
        {"rooms": True},
        {"join": "7"},
        {"join": [7]},
        {"join": ["live.*"]},
        {"join": ["imgo.dashboard"]},
    ],
    ids=str,
)
async def test_claims_that_make_no_identity_are_refused(secret, claims):
    with pytest.raises(NotAuthenticated, match="must be a key and a list of rooms"):
        await who(
            by_hand({"alg": "HS256"}, {"sub": "u1", "exp": NOW + 60, **claims}, SECRET.encode())
        )


@pytest.mark.parametrize(
    ("info", "mistake"),
    [({"name": "x" * 1_024}, "info has 1035 bytes as JSON"), (["a"], "info must be a JSON object")],
)
async def test_bad_info_claim_is_refused_with_a_reason_that_fits_a_close_frame(imgo, info, mistake):
    imgo(JWT_SECRET=SECRET, ROOMS={"chat": {"presence": True}})
    with pytest.raises(NotAuthenticated, match=f"^Claim 'info': {mistake}") as refusal:
        await who(signed(info=info))
    assert len(refusal.value.message.encode()) <= REASON_MAX
    assert (await who(signed(info={"name": "x"}))).info == {"name": "x"}


@pytest.mark.parametrize("claims", [[], "u1", None, 7])
async def test_claims_that_are_no_object_are_refused(secret, claims):
    assert await is_refused(by_hand({"alg": "HS256"}, claims, SECRET.encode()))


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value",
    ["soon", str(NOW), [], {}, None, True, float("inf"), float("-inf"), float("nan"), 10**400],
    ids=["word", "digits", "list", "object", "null", "true", "inf", "-inf", "nan", "huge"],
)
async def test_jwt_time_that_is_no_number_is_refused(secret, claim, value):
    claims = {"sub": "u1", "exp": NOW + 3600, claim: value}
    assert await is_refused(by_hand({"alg": "HS256"}, claims, SECRET.encode()))


@pytest.mark.parametrize(
    "token", ["..", "a.b.c", "\ud800.b.c", "a\0.b.c", "ä.ö.ü", "e30.e30.", f"{'x' * 4000}.y.z"]
)
async def test_what_only_looks_like_a_jwt_is_refused(secret, token):
    assert await is_refused(token)


@pytest.mark.parametrize("spelling", ["==", "a", "!", "\n"])
async def test_signature_in_another_spelling_is_refused(secret, spelling):
    assert await is_refused(signed() + spelling)


async def test_last_character_with_spare_bits_is_refused(secret):
    """The last of 43 characters has two bits that decode to nothing."""
    token = signed()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert await is_refused(token[:-1] + alphabet[alphabet.index(token[-1]) + 1])


async def test_part_with_whole_padding_is_accepted(secret):
    """Some issuers pad the parts of their tokens; PyJWT accepts that, too."""
    first = ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode()
        for part in ({"alg": "HS256"}, {"sub": "u1", "exp": NOW + 3600})
    )
    assert "=" in first
    signature = hmac.digest(SECRET.encode(), first.encode(), "sha256")
    token = f"{first}.{base64.urlsafe_b64encode(signature).decode()}"
    assert (await who(token)).key == "u1"


@pytest.mark.parametrize("extension", [{"crit": ["b64"]}, {"b64": False}, {"crit": ["exp"]}])
async def test_header_with_an_extension_is_refused(secret, extension):
    header = {"alg": "HS256", **extension}
    assert await is_refused(by_hand(header, {"sub": "u1", "exp": NOW + 3600}, SECRET.encode()))


@pytest.mark.parametrize("header", [[], "HS256", {"alg": "HS256", "kid": 7}, {}])
async def test_a_header_that_is_none_is_refused(secret, header):
    assert await is_refused(by_hand(header, {"sub": "u1"}, SECRET.encode()))


async def test_a_token_of_another_shape_is_a_stored_one(secret, transactional_db):
    assert await is_refused("no-jwt-at-all")


# JWKS


@pytest.fixture
def jwks(imgo, tmp_path):
    """Writes a JWKS file with these keys by key id, and makes it the setting."""
    path = tmp_path / "jwks.json"
    times = iter(range(NOW, NOW + 100))  # a clock that moves: file systems' may not, this fast

    def write(**keys: Any) -> None:
        found = []
        for kid, key in keys.items():
            algorithm = jwt.algorithms.RSAAlgorithm
            if isinstance(key, ec.EllipticCurvePrivateKey):
                algorithm = jwt.algorithms.ECAlgorithm
            found.append(algorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": kid})
        write_text(json.dumps({"keys": found}))

    def write_text(text: str) -> None:
        path.write_text(text)
        modified = next(times)
        os.utime(path, (modified, modified))
        imgo(JWT_JWKS_FILE=str(path))

    write.text = write_text
    write.path = path
    return write


async def test_a_jwks_key_is_chosen_by_its_id(jwks):
    jwks(a=KEY, b=OTHER_KEY)
    assert (await who(signed(KEY, "RS256", "a"))).key == "u1"
    assert (await who(signed(OTHER_KEY, "RS256", "b"))).key == "u1"
    assert await is_refused(signed(KEY, "RS256", "b"))
    assert await is_refused(signed(KEY, "RS256", "c"))


async def test_a_token_without_key_id_is_checked_with_the_first_key(jwks):
    jwks(a=KEY, b=OTHER_KEY)
    assert (await who(signed(KEY, "RS256"))).key == "u1"
    assert await is_refused(signed(OTHER_KEY, "RS256"))


async def test_rotated_keys_are_seen_without_a_restart(jwks):
    jwks(a=KEY)
    assert await is_refused(signed(OTHER_KEY, "RS256", "b"))
    jwks(b=OTHER_KEY)
    assert (await who(signed(OTHER_KEY, "RS256", "b"))).key == "u1"
    assert await is_refused(signed(KEY, "RS256", "a"))


async def test_keys_that_are_not_rsa_are_passed_over(jwks):
    elliptic = ec.generate_private_key(ec.SECP256R1())
    jwks(e=elliptic, a=KEY)
    assert (await who(signed(KEY, "RS256", "a"))).key == "u1"
    assert await is_refused(signed(elliptic, "ES256", "e"))


async def test_hs256_with_a_jwks_key_as_secret_is_refused(jwks):
    jwks(a=KEY)
    assert await is_refused(by_hand({"alg": "HS256", "kid": "a"}, {"sub": "u"}, pem(KEY).encode()))


@pytest.mark.parametrize("text", ["", "not json", "{}", '{"keys": []}', '{"keys": [1]}', "[]"])
async def test_a_jwks_file_that_cannot_be_used_refuses_and_says_so(jwks, text, caplog):
    jwks.text(text)
    assert await is_refused(signed(KEY, "RS256", "a"))
    assert "cannot be used" in caplog.text


async def test_a_jwks_file_that_is_gone_refuses_and_says_so(jwks, caplog):
    jwks(a=KEY)
    jwks.path.unlink()
    assert await is_refused(signed(KEY, "RS256", "a"))
    assert "cannot be used" in caplog.text


async def test_the_public_key_stands_in_for_a_key_that_the_jwks_has_not(jwks, imgo):
    jwks(b=OTHER_KEY)
    imgo(JWT_PUBLIC_KEY=pem(KEY))
    assert (await who(signed(KEY, "RS256", "a"))).key == "u1"
