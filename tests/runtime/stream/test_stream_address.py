"""Addresses in messages: nothing secret, whatever is in it; and what is no address is refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gensdk_runtime.errors import InputError
from gensdk_runtime.media.video.address import PROTOCOLS, check_address, masked

SCHEMES = sorted(PROTOCOLS)
PLACES = (
    "{scheme}://{user}:{secret}@cam.local:554/stream",
    "{scheme}://{secret}@cam.local/stream",
    "{scheme}://cam.local/video?user={user}&password={secret}",
    "{scheme}://cam.local/video?channel=1&token={secret}",
    "{scheme}://cam.local/user={user}_password={secret}_channel=1.sdp",
    "{scheme}://cam.local/user={user}&password={secret}",
    "{scheme}://{user}:{secret}@cam.local/video?key={secret}",
    "{scheme}:/{user}:{secret}@cam.local/stream",
    "{user}:{secret}@cam.local/stream",
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    place=st.sampled_from(PLACES),
    scheme=st.sampled_from(SCHEMES),
    head=st.text(st.sampled_from("@/?#&;=:% []\\'\"ü"), max_size=4),
    between=st.text(st.sampled_from("@/?#&;=:%"), max_size=2),
)
def test_nothing_secret_is_left(place: str, scheme: str, head: str, between: str) -> None:
    """Letters that stand nowhere else mark the secret, with what cuts addresses before and between them."""
    address = place.format(scheme=scheme, user="admin", secret=f"{head}Qx7{between}Zw9")
    shown = [masked(address)]
    try:
        check_address(address)
    except InputError as refused:
        shown.append(str(refused))
    for text in shown:
        assert "Qx7" not in text
        assert "Zw9" not in text
        assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:p@ssw0rd@cam/1", "rtsp://***@cam/1"),
        ("rtsp://admin:pa/ss@cam/1", "rtsp://***"),
        ("http://cam:80/x?user=admin&password=secret", "http://cam:80/x?user=***&password=***"),
        ("http://[::1]:8000/result.mjpg", "http://[::1]:8000/result.mjpg"),
        ("rtmp://host/live/key/2", "rtmp://host/live/***"),
        ("rtsp://cam/\x1b]0;x\x07", "rtsp://cam/?]0;x?"),
        ("photo@2x.png", "photo@2x.png"),
        ("a=b/c@d.mp4", "a=b/c@d.mp4"),
    ],
)
def test_what_is_shown(address: str, shown: str) -> None:
    assert masked(address) == shown


@pytest.mark.parametrize(
    "address",
    [
        *("file:///etc/passwd", "concat://a|b", "subfile://x", "data://x", "rtsp://", "http://:80/x", "://x"),
        *(
            "rtsp://a b/c",
            "http://host/\r\nX-Header: 1",
            "rtsp:/cam/1",
            "rtsp://admin:pa/ss@cam/1",
            "http://[::1/x",
        ),
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="expected") as raised:
        check_address(address)
    assert len(str(raised.value).splitlines()) == 1


def test_an_address_is_passed_on_as_it_is() -> None:
    assert check_address("RTSP://Admin:PW@Cam/X?y=Z") == "rtsp://Admin:PW@Cam/X?y=Z"
    assert all("file" not in leads_to for leads_to in PROTOCOLS.values())
    assert "http" not in PROTOCOLS["https"]
