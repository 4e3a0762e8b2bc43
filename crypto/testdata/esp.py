#!/usr/bin/env python3
"""Seals ESP packets with OpenSSL, by the RFCs' text: writes esp.json and checks the RFCs' vectors."""
import hashlib
import json
import os
import struct

from cryptography.hazmat.primitives import cmac, hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

HERE = os.path.dirname(os.path.abspath(__file__))
AES = (16, 24, 32)
HMACS = {
    "hmac-sha1-96": (20, 12, hashes.SHA1),
    "hmac-sha2-256-128": (32, 16, hashes.SHA256),
    "hmac-sha2-384-192": (48, 24, hashes.SHA384),
    "hmac-sha2-512-256": (64, 32, hashes.SHA512),
}
INTEGRITIES = {**{name: spec[0] for name, spec in HMACS.items()}, "aes-xcbc-96": 16, "aes-cmac-96": 16}
# keys, salt, whether the IV is sent, ICV
AEADS = {
    "aes-gcm-16": (AES, 4, True, 16), "aes-gcm-12": (AES, 4, True, 12), "aes-gcm-8": (AES, 4, True, 8),
    "aes-gcm-16-iiv": (AES, 4, False, 16),
    "aes-ccm-16": (AES, 3, True, 16), "aes-ccm-12": (AES, 3, True, 12), "aes-ccm-8": (AES, 3, True, 8),
    "aes-ccm-8-iiv": (AES, 3, False, 8),
    "chacha20-poly1305": ((32,), 4, True, 16), "chacha20-poly1305-iiv": ((32,), 4, False, 16),
    "null-aes-gmac": (AES, 4, True, 16),
}


def stream(label, n):
    return hashlib.shake_256(label.encode()).digest(n)


def xcbc(key, data):  # RFC 3566, section 4
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    key1, whole, padded = (ecb.update(bytes([i]) * 16) for i in (1, 2, 3))
    mask = whole
    if not data or len(data) % 16:
        data, mask = data + b"\x80" + bytes(-(len(data) + 1) % 16), padded
    last = bytes(x ^ y for x, y in zip(data[-16:], mask))
    return Cipher(algorithms.AES(key1), modes.CBC(bytes(16))).encryptor().update(data[:-16] + last)[-16:]


def icv(name, key, data, esn, seq_hi):
    data += struct.pack(">I", seq_hi) if esn else b""  # RFC 4303, 2.2.1
    if name == "aes-xcbc-96":
        return xcbc(key, data)[:12]
    if name == "aes-cmac-96":
        c = cmac.CMAC(algorithms.AES(key))
        c.update(data)
        return c.finalize()[:12]
    _, size, digest = HMACS[name]
    h = hmac.HMAC(key, digest())
    h.update(data)
    return h.finalize()[:size]


def seal_aead(name, key, body, spi, seq_hi, seq, esn):
    _, salt, sent, tag = AEADS[name]
    iv, key, salt = struct.pack(">II", seq_hi, seq), key[:-salt], key[-salt:]
    aad = struct.pack(">III", spi, seq_hi, seq) if esn else struct.pack(">II", spi, seq)
    if name == "null-aes-gmac":  # RFC 4543, section 3: the IV and the payload are AAD
        text = body + AESGCM(key).encrypt(salt + iv, b"", aad + iv + body)
    elif name.startswith("aes-ccm"):
        text = AESCCM(key, tag).encrypt(salt + iv, body, aad)
    elif name.startswith("chacha20"):
        text = ChaCha20Poly1305(key).encrypt(salt + iv, body, aad)
    else:
        text = AESGCM(key).encrypt(salt + iv, body, aad)[: len(body) + tag]
    return struct.pack(">II", spi, seq) + (iv if sent else b"") + text


def seal_cbc(key, body, spi, seq_hi, seq):
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    iv = ecb.update(struct.pack(">QII", 0, seq_hi, seq))  # SP 800-38A, appendix C
    cbc = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    return struct.pack(">II", spi, seq) + iv + cbc.update(body)


def ctr(key, iv, text):
    block = key[-4:] + iv + struct.pack(">I", 1)  # RFC 3686, section 4
    return Cipher(algorithms.AES(key[:-4]), modes.CTR(block)).encryptor().update(text)


def seal_ctr(key, body, spi, seq_hi, seq):
    iv = struct.pack(">II", seq_hi, seq)
    return struct.pack(">II", spi, seq) + iv + ctr(key, iv, body)


def case(encryption, integrity, enc_len, auth_len, align, blocks, esn):
    label = f"{encryption}/{integrity}/{enc_len}/{blocks}/{esn}"
    enc, auth = stream("enc " + label, enc_len), stream("auth " + label, auth_len)
    body = stream("body " + label, align * blocks)
    spi, seq, seq_hi = struct.unpack(">III", stream("header " + label, 12))
    if not esn:
        seq_hi = 0
    if encryption in AEADS:
        pkt = seal_aead(encryption, enc, body, spi, seq_hi, seq, esn)
    elif encryption == "aes-cbc":
        pkt = seal_cbc(enc, body, spi, seq_hi, seq)
    elif encryption == "aes-ctr":
        pkt = seal_ctr(enc, body, spi, seq_hi, seq)
    else:
        pkt = struct.pack(">II", spi, seq) + body
    if integrity:
        pkt += icv(integrity, auth, pkt, esn, seq_hi)
    return {"encryption": encryption, "integrity": integrity, "encKey": enc.hex(), "authKey": auth.hex(),
            "esn": esn, "seqHi": seq_hi, "body": body.hex(), "packet": pkt.hex()}


def cases():
    for esn in (False, True):
        for blocks in (1, 2, 17):
            for name, (keys, salt, _, _) in AEADS.items():
                for n in keys:
                    yield case(name, "", n + salt, 0, 4, blocks, esn)
            for name, auth_len in INTEGRITIES.items():
                yield case("null", name, 0, auth_len, 4, blocks, esn)
                for n in AES:
                    yield case("aes-cbc", name, n, auth_len, 16, blocks, esn)
                    yield case("aes-ctr", name, n + 4, auth_len, 4, blocks, esn)


def check_rfc():
    rfc = json.load(open(os.path.join(HERE, "rfc.json")))
    for t in rfc["cbc"]:
        key, pkt = bytes.fromhex(t["encKey"]), bytes.fromhex(t["packet"])
        cbc = Cipher(algorithms.AES(key), modes.CBC(pkt[8:24])).decryptor()
        assert cbc.update(pkt[24:]).hex() == t["body"], t["case"]
        assert icv(t["integrity"], bytes(range(32)), pkt, False, 0).hex() == t["icv"], t["case"]
    for t in rfc["ctr"]:
        key, iv, text = (bytes.fromhex(t[name]) for name in ("encKey", "iv", "ciphertext"))
        assert ctr(key, iv, text).hex() == t["body"], t["case"]
    for t in rfc["hmac"]:
        assert icv(t["integrity"], bytes.fromhex(t["authKey"]), t["data"].encode(), False, 0).hex() == t["icv"], t["case"]
    for t in json.load(open(os.path.join(HERE, "integrity.json")))["tests"]:
        message = bytes.fromhex(t["message"]) * t.get("repeat", 1)
        assert t["sum"].startswith(icv(t["integrity"], bytes.fromhex(t["key"]), message, False, 0).hex()), t["case"]


if __name__ == "__main__":
    check_rfc()
    with open(os.path.join(HERE, "esp.json"), "w") as f:
        json.dump({"source": "esp.py, Python cryptography over OpenSSL", "tests": list(cases())}, f, indent=1)
        f.write("\n")
