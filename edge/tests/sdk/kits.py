"""Makes signed addresses and tickets of version 2 with published kits; prints them as one JSON object.

Arguments: key, application, user, room, seconds of validity. Run by sdk_access.rs.
"""

import json
import sys
import time

import oss2
from TLSSigAPIv2 import TLSSigAPIv2

key, app_id, user, room, valid_s = sys.argv[1:]
app_id, valid_s = int(app_id), int(valid_s)


def userbuf(rights):
    """The binary part of a privateMapKey, which this version of the kit does not make itself."""
    name = user.encode()
    fields = [app_id, int(room), int(time.time()) + valid_s, rights, 0]
    numbers = b"".join(field.to_bytes(4, "big") for field in fields)
    return b"\0" + len(name).to_bytes(2, "big") + name + numbers


def oss_address(endpoint, playlist):
    bucket = oss2.Bucket(oss2.Auth("test-ak-id", key), endpoint, "test-bucket")
    return bucket.sign_rtmp_url("test-channel", playlist, valid_s)


api = TLSSigAPIv2(app_id, key)
print(json.dumps({
    "usersig": api.gen_sig(user, valid_s),
    "map_key_ff": api.gen_sig_with_userbuf(user, valid_s, userbuf(0xFF)),
    "map_key_ab": api.gen_sig_with_userbuf(user, valid_s, userbuf(0xAB)),
    "oss_by_path": oss_address("http://127.0.0.1:1935", "playlist.m3u8"),
    "oss_by_host": oss_address("http://oss.test:1935", "a b+c=d&e:é.m3u8"),
}))
