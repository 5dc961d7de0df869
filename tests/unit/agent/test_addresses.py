"""Addresses of servers."""

import pytest

from jobmon.agent.addresses import InvalidAddress, parse, split


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path", "netloc"),
    [
        ("http://host", "http", "host", 80, "", "host"),
        ("https://host/", "https", "host", 443, "", "host"),
        ("HTTPS://Host:8443", "https", "Host", 8443, "", "Host:8443"),
        ("http://host:443", "http", "host", 443, "", "host:443"),
        ("http://host:/x", "http", "host", 80, "/x", "host"),
        ("http://host:80/jobmon/", "http", "host", 80, "/jobmon", "host"),
        ("https://host/a/b//", "https", "host", 443, "/a/b", "host"),
        ("http://127.0.0.1:8070/a%20b", "http", "127.0.0.1", 8070, "/a%20b", "127.0.0.1:8070"),
        ("http://[::1]", "http", "::1", 80, "", "[::1]"),
        ("https://[2001:db8::7]:8443/j", "https", "2001:db8::7", 8443, "/j", "[2001:db8::7]:8443"),
        ("http://[fe80::1%eth0]:1", "http", "fe80::1%eth0", 1, "", "[fe80::1]:1"),
        ("http://[::ffff:10.0.0.1]:1", "http", "::ffff:10.0.0.1", 1, "", "[::ffff:10.0.0.1]:1"),
        ("  http://host:8070\n", "http", "host", 8070, "", "host:8070"),
        ("http://bücher.example", "http", "xn--bcher-kva.example", 80, "", "xn--bcher-kva.example"),
    ],
)
def test_the_parts_of_an_address(url, scheme, host, port, path, netloc):
    address = parse(url)
    assert (address.scheme, address.host, address.port, address.path) == (scheme, host, port, path)
    assert address.netloc == netloc
    assert parse(address.url).url == address.url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "must begin with http"),
        ("host:8070", "must begin with http"),
        ("ftp://host", "must begin with http"),
        ("http:/host", "must begin with http"),
        ("http://", "names no host"),
        ("http://:8070", "names no host"),
        ("http:///jobmon", "names no host"),
        ("http://host:x", "'x' is not a port"),
        ("http://host:0", "'0' is not a port"),
        ("http://host:65536", "'65536' is not a port"),
        ("http://host:-1", "'-1' is not a port"),
        ("http://host:٣", "'٣' is not a port"),
        ("http://::1:8070", "needs brackets"),
        ("http://[::1", "incomplete"),
        ("http://[host]", "incomplete"),
        ("http://[::1]8070", "follows the brackets"),
        ("http://ho st", "spaces or control characters"),
        ("http://host/a\r\nX: y", "spaces or control characters"),
        ("http://host?x=1", "query or fragment"),
        ("http://host/#x", "query or fragment"),
        ("http://host\\x", "is not a host name"),
        ("http://" + "ü" * 200, "is not a host name"),
        ("http://host/ü", "outside ASCII"),
    ],
)
def test_a_bad_address_is_named_with_the_reason(url, why):
    with pytest.raises(InvalidAddress, match=why) as caught:
        parse(url)
    assert repr(url) in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_password_in_an_address_is_not_repeated():
    with pytest.raises(InvalidAddress, match=r"http\.token") as caught:
        parse("https://me:secret@host")
    assert "secret" not in str(caught.value)


def test_several_addresses_are_separated_by_spaces_or_commas():
    assert split(" https://one:1/ ,\nhttps://two/jobmon ") == ["https://one:1", "https://two/jobmon"]
    assert split("") == []
    with pytest.raises(InvalidAddress, match="at most 8"):
        split("http://one " * 9)
