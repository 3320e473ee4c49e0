"""API keys: which texts are some, and that they show nowhere."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.core.api_keys import ApiKeys, Grant, split_keys
from deployments.core.errors import SettingsError
from deployments.core.exposure import host_of, is_loopback
from deployments.core.settings import Settings

FULL = ("full-key-number-one", "full-key-number-two")
READ_ONLY = ("read-only-key-number-one",)
KEYS = ApiKeys(FULL, READ_ONLY)


@pytest.fixture(autouse=True)
def no_settings_in_the_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@given(st.binary() | st.sampled_from([key[:n].encode() for key in FULL for n in range(len(key))]))
def test_nobody_else_s_key_is_anybody_s(presented):
    assert presented not in [key.encode() for key in FULL + READ_ONLY]
    assert KEYS.grant(presented) is None


def test_each_key_grants_what_it_is_for():
    assert [KEYS.grant(key.encode()) for key in FULL] == [Grant.WRITE, Grant.WRITE]
    assert KEYS.grant(READ_ONLY[0].encode()) == Grant.READ
    assert ApiKeys((), READ_ONLY).grant(FULL[0].encode()) is None


CHARACTERS = st.sampled_from("abcXYZ019-._~+/")


@given(
    st.lists(st.text(CHARACTERS, min_size=16, max_size=256), min_size=1, max_size=4),
    st.sampled_from([",", " ", "\n", " , ", "\t\n"]),
)
def test_keys_are_separated_by_commas_or_white_space(keys, separator):
    assert split_keys(separator.join(keys)) == tuple(keys)
    assert split_keys(f"{separator}{separator.join(keys)}{separator}") == tuple(keys)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (" , ", "has no key in it"),
        ("hunter2", "key 1 has 7 characters; 16 to 256"),
        (f"{FULL[0]},{'x' * 257}", "key 2 has 257 characters"),
        ("correct-horse-bättery", "key 1 has other characters"),
        ('"quoted-by-mistake-key"', "key 1 has other characters"),
        ("equal=sign=in=the=middle", "key 1 has other characters"),
    ],
)
@pytest.mark.parametrize("name", ["EMBEDDINGS_API_KEY", "EMBEDDINGS_READ_ONLY_API_KEY"])
def test_a_wrong_key_stops_the_start_and_is_not_shown(monkeypatch, name, keys, told):
    monkeypatch.setenv(name, keys)
    with pytest.raises(SettingsError) as raised:
        Settings.load()
    assert f"{name} (from the environment): {told}" in str(raised.value)
    assert not any(key in str(raised.value) for key in keys.split(",") if key.strip())


def test_a_key_in_the_config_file_is_refused(monkeypatch):
    with pytest.raises(SettingsError) as raised:
        Settings.load({"embeddings_api_key": FULL[0]})
    assert "belongs in the environment, as EMBEDDINGS_API_KEY" in str(raised.value)
    assert FULL[0] not in str(raised.value)


def test_contradictions_stop_the_start(monkeypatch):
    monkeypatch.setenv("EMBEDDINGS_API_KEY", FULL[0])
    with pytest.raises(SettingsError, match="lets everybody in, and a key is set"):
        Settings.load({"embeddings_allow_anonymous": True})
    monkeypatch.setenv("EMBEDDINGS_READ_ONLY_API_KEY", f"{READ_ONLY[0]} {FULL[0]}")
    with pytest.raises(SettingsError, match="have a key in common") as raised:
        Settings.load()
    assert FULL[0] not in str(raised.value)


@pytest.mark.parametrize("name", ["EMBEDDINGS_API_KEY", "EMBEDDINGS_READ_ONLY_API_KEY"])
def test_everybody_may_come_until_there_is_a_key(monkeypatch, name):
    monkeypatch.setenv("EMBEDDINGS_ALLOW_ANONYMOUS", "auto")
    assert Settings.load().embeddings_allow_anonymous is True
    monkeypatch.setenv(name, FULL[0])
    settings = Settings.load()
    assert settings.embeddings_allow_anonymous is False
    assert settings.api_keys().grant(FULL[0].encode())


def test_settings_with_keys_travel_and_do_not_show_them(monkeypatch):
    assert Settings.load().api_keys() is None
    monkeypatch.setenv("EMBEDDINGS_API_KEY", ",".join(FULL))
    monkeypatch.setenv("EMBEDDINGS_READ_ONLY_API_KEY", READ_ONLY[0])
    settings = pickle.loads(pickle.dumps(Settings.load()))
    keys = settings.api_keys()
    assert [keys.grant(key.encode()) for key in FULL + READ_ONLY] == [2, 2, 1]
    shown = f"{settings!r} {settings} {settings.model_dump_json()} {settings.model_dump()}"
    assert not any(key in shown for key in FULL + READ_ONLY)


@pytest.mark.parametrize(
    ("authority", "loopback"),
    [
        ("localhost:8004", True),
        ("LOCALHOST", True),
        ("localhost.", True),
        ("notes.localhost:80", True),
        ("127.0.0.1:8004", True),
        ("127.8.9.10", True),
        ("[::1]:8004", True),
        ("[::1]", True),
        ("evil.example", False),
        ("localhost.evil.example:8004", False),
        ("127.0.0.1.nip.io", False),
        ("10.0.0.1:8004", False),
        ("0.0.0.0:8004", False),
        ("[2001:db8::1]:80", False),
        ("", False),
        (":8004", False),
        ("[localhost]", False),
    ],
)
def test_names_of_this_machine(authority, loopback):
    assert is_loopback(host_of(authority)) is loopback
