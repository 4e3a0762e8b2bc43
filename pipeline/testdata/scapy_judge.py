"""Seals and opens ESP packets with scapy, an implementation that shares nothing with the gateway.

Reads requests from stdin, one JSON object a line, and answers each on stdout in the same way; bytes are base64:

  {"op": "sa", "spi": .., "src": "..", "dst": "..", "crypt": "AES-GCM", "crypt_key": .., "auth": "", "auth_key": ..,
   "esn": false}                                 makes a tunnel-mode SA; they are counted from 0
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
    outer = (IPv6 if ":" in r["dst"] else IP)(src=r["src"], dst=r["dst"])
    return SecurityAssociation(
        ESP, spi=r["spi"], tunnel_header=outer, esn_en=r["esn"],
        crypt_algo=r["crypt"], crypt_key=base64.b64decode(r["crypt_key"]) or None,
        auth_algo=r["auth"] or None, auth_key=base64.b64decode(r["auth_key"]) or None)


def number(sa, seq):
    # Given as an argument, a half that is 0 would count as not given.
    sa.seq_num, sa.esn = seq & 0xFFFFFFFF, seq >> 32


def seal(sa, data):
    family = IPv6 if data[0] >> 4 == 6 else IP
    return bytes(sa.encrypt(family(data)))


def open_(sa, data):
    outer = sa.tunnel_header.__class__(data)
    check_outer(outer, sa.tunnel_header)
    if outer[ESP].seq != sa.seq_num:
        raise ValueError("sequence number %d, want %d" % (outer[ESP].seq, sa.seq_num))
    inner = bytes(sa.decrypt(outer))
    # decrypt leaves the next header in the outer one, and takes the inner packet's version from its first byte.
    nh = outer.proto if outer.version == 4 else outer.nh
    if nh != {4: 4, 6: 41}[inner[0] >> 4]:
        raise ValueError("next header %d in front of %s" % (nh, inner.hex()))
    return inner


def check_outer(outer, want):
    """Raises unless scapy computes the same lengths and checksum, and finds the SA's addresses and nothing else."""
    again = outer.copy()
    for field in ("ihl", "len", "chksum") if again.version == 4 else ("plen",):
        delattr(again, field)
    if bytes(again) != bytes(outer):
        raise ValueError("outer header %r: scapy makes %r of its fields" % (outer, again))
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
