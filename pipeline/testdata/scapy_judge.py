"""Seals and opens ESP packets with scapy, an implementation that shares nothing with the gateway.

Reads requests from stdin, one JSON object a line, and answers each on stdout in the same way; bytes are base64:

  {"op": "sa", "spi": .., "src": "..", "dst": "..", "crypt": "AES-GCM", "crypt_key": .., "auth": "", "auth_key": ..,
   "esn": false, "transport": false}             makes an SA, in tunnel mode if not transport; they are counted from 0
  {"op": "seal", "sa": 0, "seq": n, "packet": ..}  IP packet -> IP packet with ESP
  {"op": "open", "sa": 0, "seq": n, "packet": ..}  IP packet with ESP -> IP packet

seq is the whole 64-bit sequence number. An answer has "packet", or "refused" when scapy found the integrity check
value wrong, or "error". The first line comes unasked and names the versions.
"""

import base64
import json
import sys


def load():
    """Imports scapy into this module's globals; returns a line that names the versions."""
    global ESP, IP, IPv6, IPSecIntegrityError, SecurityAssociation
    import cryptography
    import scapy
    from scapy.config import conf
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation

    if not conf.crypto_valid:
        raise ImportError("scapy finds no usable cryptography module")
    return "scapy %s, cryptography %s" % (scapy.__version__, cryptography.__version__)


def new_sa(r):
    family = IPv6 if ":" in r["dst"] else IP
    return SecurityAssociation(
        ESP, spi=r["spi"], esn_en=r["esn"],
        tunnel_header=None if r["transport"] else family(src=r["src"], dst=r["dst"]),
        crypt_algo=r["crypt"], crypt_key=base64.b64decode(r["crypt_key"]) or None,
        auth_algo=r["auth"] or None, auth_key=base64.b64decode(r["auth_key"]) or None)


def number(sa, seq):
    # Given as an argument, a half that is 0 would count as not given.
    sa.seq_num, sa.esn = seq & 0xFFFFFFFF, seq >> 32


def seal(sa, data):
    family = IPv6 if data[0] >> 4 == 6 else IP
    return bytes(sa.encrypt(family(data)))


def open_(sa, data):
    outer = (IPv6 if data[0] >> 4 == 6 else IP)(data)
    check_outer(outer)
    if outer[ESP].seq != sa.seq_num:
        raise ValueError("sequence number %d, want %d" % (outer[ESP].seq, sa.seq_num))
    if sa.tunnel_header is None:
        return bytes(sa.decrypt(outer))
    check_tunnel(outer, sa.tunnel_header)
    inner = bytes(sa.decrypt(outer))
    # decrypt leaves the next header in the outer one, and takes the inner packet's version from its first byte.
    nh = outer.proto if outer.version == 4 else outer.nh
    if nh != {4: 4, 6: 41}[inner[0] >> 4]:
        raise ValueError("next header %d in front of %s" % (nh, inner.hex()))
    return inner


def check_outer(outer):
    """Raises unless scapy computes the same lengths and checksum."""
    again = outer.copy()
    for field in ("ihl", "len", "chksum") if again.version == 4 else ("plen",):
        delattr(again, field)
    if bytes(again) != bytes(outer):
        raise ValueError("outer header %r: scapy makes %r of its fields" % (outer, again))


def check_tunnel(outer, want):
    """Raises unless the header has the SA's addresses, and nothing but ESP behind it."""
    if (outer.src, outer.dst) != (want.src, want.dst) or not isinstance(outer.payload, ESP):
        raise ValueError("outer header %r is not the SA's" % outer)


def answer(r, sas):
    if r["op"] == "sa":
        sas.append(new_sa(r))
        return {}
    sa = sas[r["sa"]]
    number(sa, r["seq"])
    run = {"seal": seal, "open": open_}[r["op"]]
    try:
        return {"packet": base64.b64encode(run(sa, base64.b64decode(r["packet"]))).decode()}
    except IPSecIntegrityError as e:
        return {"refused": "integrity check failed: %s" % e}


def say(reply):
    print(json.dumps(reply), flush=True)


def main():
    try:
        say({"ready": load()})
    except ImportError as e:
        say({"error": str(e)})
        return
    sas = []
    for line in sys.stdin:
        try:
            say(answer(json.loads(line), sas))
        except Exception as e:  # the test prints it with the packet that caused it
            say({"error": "%s: %s" % (type(e).__name__, e)})


main()
