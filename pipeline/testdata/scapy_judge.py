"""Seals and opens ESP and AH packets with scapy, an implementation that shares nothing with the gateway.

Algorithms that scapy does not have are made here of OpenSSL's, by the RFCs; the packets around them are scapy's.

Reads requests from stdin, one JSON object a line, and answers each on stdout in the same way; bytes are base64:

  {"op": "sa", "spi": .., "src": "..", "dst": "..", "crypt": "AES-GCM", "icv": 16, "crypt_key": .., "auth": "",
   "auth_key": .., "esn": false, "transport": false, "ah": false}  makes an SA, in tunnel mode if not transport, of ESP
                                                                   if not ah; they are counted from 0
  {"op": "seal", "sa": 0, "seq": n, "packet": ..}  IP packet -> IP packet with ESP or AH
  {"op": "open", "sa": 0, "seq": n, "packet": ..}  IP packet with ESP or AH -> IP packet

seq is the whole 64-bit sequence number. An answer has "packet", or "refused" when scapy found the integrity check
value wrong, or "error". The first line comes unasked and names the versions.
"""

import base64
import json
import struct
import sys


def load():
    """Imports scapy into this module's globals; returns a line that names the versions."""
    global AH, ESP, IP, IPv6, IPSecIntegrityError, SecurityAssociation, bind_layers, split_layers
    import cryptography
    import scapy
    from scapy.config import conf
    from scapy.layers.inet import IP
    from scapy.packet import bind_layers, split_layers
    from scapy.layers.inet6 import IPv6
    from scapy.layers.ipsec import AH, ESP, IPSecIntegrityError, SecurityAssociation

    if not conf.crypto_valid:
        raise ImportError("scapy finds no usable cryptography module")
    extend()
    return "scapy %s, cryptography %s" % (scapy.__version__, cryptography.__version__)


def extend():
    """Adds to scapy's tables what they lack."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305
    from scapy.layers.ipsec import AUTH_ALGOS, CRYPT_ALGOS, AuthAlgo, CryptAlgo

    def sent(sa, iv, **_):
        return sa.crypt_salt + iv

    def implicit(sa, iv, **_):  # RFC 8750, section 4
        return sa.crypt_salt + struct.pack("!II", sa.esn if sa.esn_en else 0, sa.seq_num)

    def aead(name, cipher, salt, icv, nonce=sent):
        algo = CryptAlgo(name, cipher=cipher, mode=None, key_size=(16, 24, 32), block_size=1, salt_size=salt,
                         iv_size=8 if nonce is sent else 0, icv_size=icv, format_mode_iv=nonce)
        algo.is_aead = algo.ciphers_aead_api = True
        CRYPT_ALGOS[name] = algo

    class Cut:
        """An AES-GCM whose tag is cut (RFC 4106, section 6)."""
        def __init__(self, key):
            self.gcm = AESGCM(key)

        def encrypt(self, nonce, data, aad):
            return self.gcm.encrypt(nonce, data, aad)[:len(data) + self.size]

        def decrypt(self, nonce, data, aad):
            text = self.gcm.encrypt(nonce, data[:-self.size], aad)[:-16]
            if self.encrypt(nonce, text, aad) != data:
                raise InvalidTag
            return text

    class GMAC:
        """RFC 4543, section 3."""
        def __init__(self, key):
            self.gcm = AESGCM(key)

        def encrypt(self, nonce, data, aad):
            return data + self.gcm.encrypt(nonce, b"", aad + nonce[4:] + data)

        def decrypt(self, nonce, data, aad):
            self.gcm.decrypt(nonce, data[-16:], aad + nonce[4:] + data[:-16])
            return data[:-16]

    class CCM8(AESCCM):
        def __new__(cls, key):
            return AESCCM(key, tag_length=8)

    class XCBC:
        """RFC 3566, section 4."""
        def __init__(self, key, *_):
            ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
            self.keys, self.text = [ecb.update(bytes([i]) * 16) for i in (1, 2, 3)], b""

        def update(self, text):
            self.text += text

        def finalize(self):
            text, mask = self.text, self.keys[1]
            if not text or len(text) % 16:
                text, mask = text + b"\x80" + bytes(-(len(text) + 1) % 16), self.keys[2]
            text = text[:-16] + bytes(x ^ y for x, y in zip(text[-16:], mask))
            return Cipher(algorithms.AES(self.keys[0]), modes.CBC(bytes(16))).encryptor().update(text)[-16:]

    for n in (8, 12):
        aead("AES-GCM-%d" % n, type("Cut%d" % n, (Cut,), {"size": n}), 4, n)
    aead("AES-GMAC", GMAC, 4, 16)
    aead("AES-GCM-IIV", AESGCM, 4, 16, implicit)
    aead("AES-CCM-8-IIV", CCM8, 3, 8, implicit)
    aead("CHACHA20-POLY1305-IIV", ChaCha20Poly1305, 4, 16, implicit)
    AUTH_ALGOS["AES-XCBC-96"] = AuthAlgo("AES-XCBC-96", mac=XCBC, digestmod=lambda: None, icv_size=12, key_size=(16,))


def new_sa(r):
    family = IPv6 if ":" in r["dst"] else IP
    return SecurityAssociation(
        AH if r["ah"] else ESP, spi=r["spi"], esn_en=r["esn"],
        tunnel_header=None if r["transport"] else family(src=r["src"], dst=r["dst"]),
        crypt_algo=r.get("crypt"), crypt_icv_size=r.get("icv"), crypt_key=base64.b64decode(r["crypt_key"] or "") or None,
        auth_algo=r["auth"] or None, auth_key=base64.b64decode(r["auth_key"]) or None)


def number(sa, seq):
    # Given as an argument, a half that is 0 would count as not given.
    sa.seq_num, sa.esn = seq & 0xFFFFFFFF, seq >> 32


def seal(sa, data):
    family = IPv6 if data[0] >> 4 == 6 else IP
    if sa.proto is not AH:
        return bytes(sa.encrypt(family(data)))
    # Where scapy sees ESP, it signs that, whatever goes around it.
    split_layers(IP, ESP, proto=50)
    split_layers(IPv6, ESP, nh=50)
    try:
        return bytes(sa.encrypt(family(data)))
    finally:
        bind_layers(IP, ESP, proto=50)
        bind_layers(IPv6, ESP, nh=50)


def open_(sa, data):
    outer = (IPv6 if data[0] >> 4 == 6 else IP)(data)
    check_outer(outer)
    if outer[sa.proto].seq != sa.seq_num:
        raise ValueError("sequence number %d, want %d" % (outer[sa.proto].seq, sa.seq_num))
    if sa.tunnel_header is None:
        return bytes(sa.decrypt(outer))
    check_tunnel(outer, sa.tunnel_header)
    inner = bytes(sa.decrypt(outer))
    if sa.proto is AH:
        return inner
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
    """Raises unless the header has the SA's addresses, and nothing but ESP or AH behind it."""
    if (outer.src, outer.dst) != (want.src, want.dst) or not isinstance(outer.payload, (AH, ESP)):
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
