"""Makes a ticket of version 1 with a published kit and prints it.

Arguments: file of the private key, file of the public key, application, user, seconds of validity.
"""

import sys

from TLSSigAPI import TLSSigAPI

private, public, app_id, user, valid_s = sys.argv[1:]
with open(private) as private_file, open(public) as public_file:
    api = TLSSigAPI(int(app_id), private_file.read(), public_file.read())
sig = api.gen_sig(user, int(valid_s))
print(sig.decode() if isinstance(sig, bytes) else sig)
